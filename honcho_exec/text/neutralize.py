"""Break what a prompt could take for structure, and what rendering could fetch.

Recalled text is data. One character of every such mark is replaced by a look-alike that nothing parses, so that people
and models read the same text. Invisible characters within a mark do not hide it, nor do other forms of its characters
(full width, bold). All of it takes linear time, and doing it twice changes nothing more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["neutralize", "without_thinking"]

# Words of which one makes a tag's name dangerous: fences, roles, tool calls and their results, thinking, tokens.
_MARKING = frozenset(
    """
    antml assistant bos call calls cls context developer eod eom eop eos eot function functioncall functioncalls
    functions human im instruction instructions invoke memory observation pad parameter parameters prompt reasoning
    reminder s scratchpad sep sop sys system think thinking thought tool toolcall toolcalls toolresponse toolresult
    tools tooluse turn unk user
    """.split()  # noqa: SIM905 - fifty quoted words are hard to read
)
_SCHEMES = ("http:", "https:", "ftp:", "ws:", "wss:", "data:", "javascript:", "mailto:", "file:")

# What a link or an image is fetched from, at another place than the text's own.
_ELSEWHERE = r"\s*+ <?+ \s*+ (?: [a-z][a-z0-9+.-]{0,30}+:\S | [/\\]{2} | \S{0,40}?&(?:\#|colon|sol|tab|newline) )"

# An attribute of a tag by which a page fetches something from elsewhere.
_FETCHING = (
    r"(?:src|srcset|href|background|action|formaction|poster|data|style) \s*+ = \s*+ [\"']?+ [^>]{0,30}?"
    r"(?: (?:https?|ftp|wss?|data|javascript): | // | &\# )"
)
_SPEAKER = r"(?:role|from) \s*+ = \s*+ [\"']?+ (?:system|assistant|user|human|developer|tool) \b"

# The possessive and the bounded quantifiers keep every branch linear, however much blank there is. Nothing here depends
# on a character being absent that a replacement takes away.
_MARK = re.compile(
    rf"""
      (?P<tag><) (?=\s*+ (?:/\s*+)?+ (?:
          \|\w
        | (?P<live> message\s[^>]{{0,100}}?role
            | (?:img|image|i?frame|embed|object|video|audio|source|track|script|link|input)[\s/]
            | a[\s/]++[^\s=>]{{1,40}}+\s*+=
            | [a-z][\w:.-]{{0,40}}+[\s/] (?=[^>=]{{0,60}}+=) [^>]{{0,60}}? \b(?: {_SPEAKER} | {_FETCHING} ) )
        | (?P<name>[\w:.-]++) (?!@)
      ))
    | (?P<note>\[) (?=\s*+ (?:/\s*+)?+ (?:
          system (?: \s++ (?:note|message|prompt|reminder)\b | \s*+ [:\]] )
        | (?:assistant|developer|important) \s*+ :
        | (?:inst|tool_calls?|tool_results?|available_tools|[gs]?mask|cls|sep|pad|unk) \s*+ [:\]]
      ))
    | (?<=\]) (?P<link>\() (?={_ELSEWHERE})
    | (?<=\]) (?P<definition>:) (?={_ELSEWHERE})
    | (?<=```) (?:tool|function) (?P<joint>_)
    """,
    re.IGNORECASE | re.VERBOSE,
)

# A line that speaks in a role's name, as plain text formats, instruction templates and agents' formats have it.
_ROLE = re.compile(
    r"""(?:^|(?<=[\r\u2028\u2029])) (?: [^\S\n\r\u2028\u2029] | [>*\#_`|+\[(-] )*+
    (?: system (?:\ (?:prompt|message|note|override|instructions?))?+
      | (?:tool|function)\ (?:call|output|response|result)s? | assistant | user | human | developer | tool | ai
      | instructions? | (?<=[\#]\x20)(?:input|response)
      | observation | thought | action | action\ input | final\ answer )
    [*_`\])]*+ [^\S\n]*+ (?P<role>:)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)

_LOOK_ALIKES = {
    "tag": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
    "note": "\N{FULLWIDTH LEFT SQUARE BRACKET}",
    "link": "\N{FULLWIDTH LEFT PARENTHESIS}",
    "definition": "\N{RATIO}",
    "joint": "\N{MODIFIER LETTER LOW MACRON}",
    "role": "\N{RATIO}",
}

# Escape sequences of a terminal begin with one of these; what follows is text then.
_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"} | dict.fromkeys(
    range(0x7F, 0xA0), "\N{REPLACEMENT CHARACTER}"
)
# Unicode's tag characters spell text that only a model reads; in the flags of England, Scotland and Wales they stay.
_TAG_CHARACTERS = re.compile(
    "(?P<flag>\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074"
    "|\U000e0077\U000e006c\U000e0073)\U000e007f)|[\U000e0000-\U000e007f]+"
)
# One of them chooses how the character before it looks; more of them spell bytes.
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_NO_ASCII = re.compile("[^\x00-\x7f]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_THINKING = re.compile(
    r"(?P<lead>^[^\S\n]*+)?<\s*+(?P<closes>/\s*+)?(?:think|thinking|thought|reasoning|reasoning_scratchpad)\s*+>"
    r"(?P<ends>[^\S\n]*+(?:\n|\Z))?",
    re.IGNORECASE | re.MULTILINE,
)


def neutralize(text: str) -> str:
    """Break fences, tool calls, chat templates, role names, terminal escapes, links and images.

    Ordinary markup, code and addresses stay as they are.
    """
    text = _SELECTORS.sub("", _TAG_CHARACTERS.sub(lambda run: run["flag"] or "", text)).translate(_CONTROLS)
    # Where each visible character is; None if all are visible.
    places: list[int] | None = None
    visible = text
    if _INVISIBLE.search(text):
        places = [place for place, character in enumerate(text) if not _INVISIBLE.match(character)]
        visible = "".join(map(text.__getitem__, places))
    visible = _NO_ASCII.sub(lambda character: _plain_form(character[0]), visible)
    characters: list[str] = []
    for place, look_alike in _marks(visible):
        characters = characters or list(text)
        characters[place if places is None else places[place]] = look_alike
    return "".join(characters) or text


@lru_cache(maxsize=4096)
def _plain_form(character: str) -> str:
    """Return the ASCII character of a full-width, bold or similar form; else the character."""
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 and plain.isascii() else character


def without_thinking(text: str) -> str:
    """Remove a model's `<think>` blocks; a tag that is only mentioned stays.

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


def _marks(text: str) -> Iterator[tuple[int, str]]:
    """Find the marks of a text and their replacements."""
    for pattern in (_MARK, _ROLE):
        for mark in pattern.finditer(text):
            if kind := _kind(mark):
                yield mark.start(kind), _LOOK_ALIKES[kind]


def _kind(mark: re.Match[str]) -> str | None:
    """Return the group of the character to replace; None if the tag is not a mark."""
    found = mark.groupdict()
    if name := found.get("name"):
        words = re.split(r"[-_:.]+", name.lower())
        return "tag" if name.lower().startswith(_SCHEMES) or not _MARKING.isdisjoint(words) else None
    return next(kind for kind in _LOOK_ALIKES if found.get(kind))
