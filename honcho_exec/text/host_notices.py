"""Remove the host's notices from a user's message.

A host gives its agent results of delegated work, notices of processes and of compaction, skills and reminders as
messages of the user (seen in hermes-agent 0.19.0). They are recognised by their beginning *and* their shape: a notice
that a person quotes within a sentence, behind a quotation mark or with other words on the same line stays.
"""

from __future__ import annotations

import re

__all__ = ["spoken"]

# Messages that are a machine's from their first to their last line.
_WHOLE = re.compile(
    r"""\[(?:ASYNC\ )?DELEGATION\ (?:BATCH\ )?COMPLETE\b[^\]\n]*\]\n
        (?=(?s:.{0,2000}?)(?:^A\ background\ |^Original\ goal:|^---\ |^Status:|^Role:))
      | \[Continuing\ toward\ your\ standing\ goal\]\nGoal:
      | \[Continuing\ toward\ this\ kanban\ task\b[^\]\n]*\]\nReason:
      | \[The\ work\ looks\ complete,\ but\ the\ task\ is\ still\ open\]\nReason:
      | \[(?:IMPORTANT|SYSTEM):\ You\ are\ running\ as\ a\ scheduled\ cron\ job\.
      | Review\ the\ conversation\ above\ and\ (?:consider\ saving\ to\ memory\ if\ appropriate\.\n
          | update\ the\ skill\ library\.\ Be\ ACTIVE | update\ two\ things:\n)
      | \[Earlier\ conversation\ digest\ —
      | \[Mixture\ of\ Agents\ (?:reference\ )?context
    """,
    re.VERBOSE | re.MULTILINE,
)
# A process's output may hold brackets of its own, so that only the last one closes the notice.
_PROCESS = re.compile(r"\[(?:IMPORTANT|SYSTEM): Background process \S+ [^\n]*\nCommand: ")

# Notices in brackets, alone or before what was said; but for notes of the system only the known ones, since people
# write brackets too.
_NOTE = re.compile(
    r"""\[(?:
        (?:System|SYSTEM)\ note:
      | (?:System|SYSTEM):\ (?:Your|You|The|Continue|Background)\b
      | IMPORTANT:\ (?:Background\ process\ | MCP\ servers\ have\ been\ reloaded | Watch[ -]pattern
          | The\ following\ skill\(s\)\ were\ listed)
      | Note:\ (?:model\ was\ just\ switched\ | Some\ earlier\ conversation\ turns\ have\ been\ compacted)
      | USER\ INITIATED\ SKILLS\ RELOAD:
      | Session\ was\ just\ handed\ off\ from\ CLI\b
      | Background\ process\ \S+\ (?:finished\ with\ exit\ code | is\ still\ running)
      | Triggering\ message\ id:
      | Runtime\ note: | Skill\ setup\ note:
      | A\ high-risk\ confirmation\ previously\ given\ here\ has\ EXPIRED
    )""",
    re.VERBOSE,
)
_TASKS = "[Your active task list was preserved across context compression]"

_COMPACTION = re.compile(
    r"\[CONTEXT COMPACTION\b[^\]\n]*\] Earlier turns|\[CONTEXT SUMMARY\]:|\[PRIOR CONTEXT — for reference only\b"
)
_COMPACTION_END = re.compile(r"--- END OF CONTEXT SUMMARY\b[^\n]*---")

_SKILL = re.compile(r'\[(?:IMPORTANT|SYSTEM): The user has invoked the "[^"\n]*"(?P<many>[^\n]* skill bundle,)?')
_SKILL_LOADED = "The full skill content is loaded below.]"
_SKILL_SAID = "The user has provided the following instruction alongside the skill invocation: "
_BUNDLE_LOADED = "\nSkills loaded: "
_BUNDLE_SAID = "\nUser instruction: "
_BUNDLE_SKILL = "\n\n[Loaded as part of the "
_AUTO_SKILL = re.compile(r'\[IMPORTANT: The "[^"\n]*" skill is auto-loaded\.')
_BRACKET = re.compile(r"[\[\]]")


_MAX_NOTICES = 100


def spoken(text: str) -> str:
    """Return the part of a user's message that the user wrote, which may be empty.

    Takes time in proportion to the text's length: at most the first hundred notices are removed.
    """
    said = text.strip()
    for _ in range(_MAX_NOTICES):
        rest = _without_notice(said) if said.startswith(("[", "Review the conversation above and ")) else None
        if rest is None:
            return said
        said = rest.strip()
    return said


def _without_notice(text: str) -> str | None:
    """Return the text behind its leading notice; None if it begins with none."""
    if _WHOLE.match(text) or (_PROCESS.match(text) and text.endswith("]")):
        return ""
    if _COMPACTION.match(text):
        end = _COMPACTION_END.search(text)
        return text[end.end() :] if end else ""
    if text.startswith(f"{_TASKS}\n- ["):
        return text.partition("\n\n")[2]
    if skill := _SKILL.match(text):
        return _bundle_instruction(text) if skill["many"] else _skill_instruction(text)
    if _AUTO_SKILL.match(text):
        # What was said is the last of it, behind skills that end nowhere in particular.
        return text.rpartition("\n\n")[2]
    return _behind_note(text) if _NOTE.match(text) else None


def _behind_note(text: str) -> str | None:
    """Return the text behind a note in brackets, which must stand alone or end its paragraph."""
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] == "[" else -1
        if depth == 0:
            rest = text[bracket.end() :]
            return rest if not rest or rest.startswith("\n\n") else None
    return None


def _skill_instruction(text: str) -> str | None:
    """Return the user's words with a skill: the last ones, since the skill's text may be similar."""
    if _SKILL_LOADED not in text:
        return None
    _, found, said = text.rpartition(_SKILL_SAID)
    return said.partition("\n\n[Runtime note:")[0] if found else ""


def _bundle_instruction(text: str) -> str | None:
    """Return the user's words with several skills, which stand before the first."""
    if _BUNDLE_LOADED not in text:
        return None
    head = text.partition(_BUNDLE_SKILL)[0]
    return head.partition(_BUNDLE_SAID)[2]
