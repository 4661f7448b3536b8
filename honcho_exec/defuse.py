"""What comes back from memory is data: what could pass for structure in a prompt is made to look it only.

One sign of every such mark is replaced by a look-alike that nothing parses, so that people and models read the
same text, no text grows, and doing it twice changes nothing more. All of it takes linear time.
"""

from __future__ import annotations

import re

__all__ = ["defuse", "defuse_for_prompt", "without_thinking"]

# Words of which one makes a tag's name dangerous: fences, roles, tool calls and their results, thinking.
_MARKING = frozenset(
    """
    antml assistant call calls context developer function functioncall functioncalls functions human instruction
    instructions invoke memory parameter parameters prompt reasoning reminder s scratchpad sys system think thinking
    thought tool toolcall toolcalls toolresponse toolresult tools tooluse turn user
    """.split()  # noqa: SIM905 - forty quoted words are hard to read
)

# The possessive quantifiers keep every branch linear, however much blank there is.
_MARK = re.compile(
    r"""
      (?P<tag>[<\uff1c]) (?=\s*+ (?:/\s*+)?+ (?:[|\uff5c]\w | (?P<name>[\w:.-]++) (?!@)))
    | (?P<note>\[) (?=\s*+ (?:/\s*+)?+ (?:
          system (?: \s++ (?:note|message|prompt|reminder)\b | \s*+ [:\]] )
        | (?:assistant|developer|important) \s*+ :
        | (?:inst|tool_calls?|tool_results?|available_tools) \s*+ [:\]]
      ))
    | (?<=```) (?P<language>tool|function) (?P<joint>_)
    """,
    re.IGNORECASE | re.VERBOSE,
)

# A line that speaks in a role's name, as plain text formats and ReAct prompts have it.
_ROLE = re.compile(
    r"^(?P<name>[^\S\n]*+[>*#_]*+[^\S\n]*+"
    r"(?:system|assistant|user|human|developer|tool|ai|action input)[*_]*+[^\S\n]*+):",
    re.IGNORECASE | re.MULTILINE,
)

_THINKING = re.compile(
    r"(?P<lead>^[^\S\n]*+)?<\s*+(?P<closes>/\s*+)?(?:think|thinking|thought|reasoning|reasoning_scratchpad)\s*+>"
    r"(?P<ends>[^\S\n]*+(?:\n|\Z))?",
    re.IGNORECASE | re.MULTILINE,
)


def defuse(text: str) -> str:
    """Return `text` without anything that a program or model could take for a fence, a tool call or a chat's frame.

    Ordinary markup, code and addresses stay as they are.
    """
    return _MARK.sub(_look_alike, text)


def defuse_for_prompt(text: str) -> str:
    """The same for text that is put before a turn: no line of it speaks in a role's name either."""
    return _ROLE.sub("\\g<name>\N{RATIO}", defuse(text))


def without_thinking(text: str) -> str:
    """Return a model's text without its `<think>` blocks; a tag that is only mentioned stays.

    A block that never ends is one when it begins a line. A closing tag that ends a line and was never opened closes
    what stands before it: some chat templates swallow the opening one.
    """
    kept: list[str] = []
    place = start = depth = 0
    begins_line = opened = False
    for tag in _THINKING.finditer(text):
        if not tag["closes"]:
            if depth == 0:
                start, begins_line = tag.start(), tag["lead"] is not None
            depth, opened = depth + 1, True
        elif depth:
            depth -= 1
            if depth == 0:
                kept.append(text[place:start])
                place = tag.end()
        elif not opened and tag["ends"] is not None:
            place, opened = tag.end(), True
    kept.append(text[place:start] if depth and begins_line else text[place:])
    return "".join(kept).strip()


def _look_alike(mark: re.Match[str]) -> str:
    if mark["tag"]:
        name = mark["name"]
        marks = name is None or not _MARKING.isdisjoint(re.split(r"[-_:.]+", name.lower()))
        return "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}" if marks else mark["tag"]
    if mark["note"]:
        return "\N{FULLWIDTH LEFT SQUARE BRACKET}"
    return f"{mark['language']}\N{MODIFIER LETTER LOW MACRON}"
