"""Clean, redact and split texts before they are stored or sent."""

from __future__ import annotations

import re

from honcho_exec.text.redaction import redact

__all__ = ["CONTINUED", "clean", "cut_at_word", "harmless", "plain_text", "split", "storable"]

CONTINUED = "[continued] "
"""Marks every part of a split message but the first, as the bundled provider does."""

# A tag of a leaked block: `lead` when nothing but spaces stands before it on its line, `blank` behind it.
_TAG = re.compile(
    r"(?P<lead>^[^\S\r\n]*)?<\s*(?P<closes>/\s*)?memory-context(?![\w-])[^<>]*>(?=(?P<blank>\s*+))",
    re.IGNORECASE | re.MULTILINE,
)
_BEHIND_LEAK = re.compile(r"[ \t]*(?:[\r\n]|\[System note:)", re.IGNORECASE)
_BEHIND_OPEN_END = re.compile(r"\s*\[System note:", re.IGNORECASE)
# The bracket that opens a leaked note, and every other bracket.
_NOTE = re.compile(
    r"(?P<note>\[)(?=System note:\s*+The following is recalled memory context,)|\[|(?P<closes>\])\s*+", re.IGNORECASE
)
# People's text is clean after two rounds. What is removed may leave a new leak behind, so that hostile text could
# take a round for each of its characters.
_MAX_ROUNDS = 8
_SURROGATE = re.compile("[\ud800-\udfff]")

# Honcho counts tokens with a tokenizer that refuses these in ordinary text: two of them answer 422 for the
# whole batch, the other three 500. A zero-width space after the bracket leaves them readable and harmless.
_SPECIAL_TOKEN = re.compile(r"<(?=\|(?:endoftext|endofprompt|fim_prefix|fim_middle|fim_suffix)\|>)")


def plain_text(value: object) -> str | None:
    """Return the text of a message's content: a string, None (empty), or OpenAI-style parts.

    Return None for any other type.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part if isinstance(part, str) else part.get("text") for part in value if isinstance(part, str | dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return None


def harmless(text: str) -> str:
    """Remove NUL, replace lone surrogates by U+FFFD, and join pairs of surrogates."""
    text = text.replace("\x00", "")
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean(text: str) -> str:
    """Remove leaked recalled memory, and whatever Honcho does not take.

    Includes `harmless`. Special tokens of the tokenizer are broken by a zero-width space. Cleaning twice changes
    nothing more.
    """
    text = harmless(text).strip()
    for _ in range(_MAX_ROUNDS):
        cleaned = _without_notes(_without_leaks(text)).strip()
        if cleaned == text:
            break
        text = cleaned
    else:
        text = _broken(text)
    return _SPECIAL_TOKEN.sub("<\u200b", text)


def storable(text: str, *, mask: bool) -> str:
    """Clean a text, and mask obvious secrets if `mask` is set."""
    return redact(clean(text)) if mask else clean(text)


def split(text: str, limit: int, *, mark: str = CONTINUED) -> list[str]:
    """Split a cleaned text into parts of at most `limit` characters, with `mark` before all but the first.

    Cuts fall after a paragraph, else a sentence, else a word, else anywhere, and the parts without their
    marks are exactly the text. A limit of 25,000 is Honcho's own.
    """
    if len(text) <= limit:
        return [text] if text else []
    parts = []
    start, room, lead = 0, limit, ""
    while len(text) - start > room:
        end = start + _cut(text[start : start + room])
        parts.append(lead + text[start:end])
        start, room, lead = end, limit - len(mark), mark
    parts.append(lead + text[start:])
    return parts


def cut_at_word(text: str, limit: int) -> str:
    """Cut a text to at most `limit` characters at the end of a word, with an ellipsis."""
    if len(text) <= limit:
        return text
    if limit < 2:  # noqa: PLR2004 - no room for a letter and the ellipsis
        return ""
    head = text[: limit - 1]
    space = head.rfind(" ")
    return (head[:space] if space > 0 else head).rstrip() + "…"


def _without_leaks(text: str) -> str:
    """Remove blocks of recalled memory, with the blocks inside them; tags that a person mentions stay.

    A block is a leak when its opening tag begins a line, or a line break or the system note follows it. A
    block with too few closing tags ends at the last one, or at the end of the text if the system note begins it.
    """
    kept: list[str] = []
    place = start = end = depth = 0
    blank_to = -1
    open_end: int | None = None
    for tag in _TAG.finditer(text):
        closes = bool(tag["closes"])
        begins = tag.start() if tag["lead"] is None else tag.end("lead")
        if depth == 0:
            behind_leak = begins <= blank_to
            if closes:
                # One closing tag too many, right behind a block, is the block's.
                place, blank_to = (tag.end(), tag.end("blank")) if behind_leak else (place, blank_to)
                continue
            if tag["lead"] is None and not behind_leak and not _BEHIND_LEAK.match(text, tag.end()):
                continue
            start, end = begins, 0
        if closes:
            depth, end = depth - 1, tag.end()
            if depth == 0:
                kept.append(text[place:start])
                place, open_end, blank_to = end, None, tag.end("blank")
        else:
            depth += 1
            if open_end is None and _BEHIND_OPEN_END.match(text, tag.end()):
                open_end = begins
    if depth and end:
        kept.append(text[place:start])
        place = end
    elif depth and open_end is not None:
        return "".join(kept) + text[place:open_end]
    return "".join(kept) + text[place:]


def _without_notes(text: str) -> str:
    """Remove notes before recalled memory, with the notes inside them; one with another bracket stays."""
    opened: list[int] = []
    notes: list[tuple[int, int]] = []
    for bracket in _NOTE.finditer(text):
        if bracket["note"]:
            opened.append(bracket.start())
        elif not bracket["closes"]:
            opened.clear()
        elif opened:
            start = opened.pop()
            while notes and notes[-1][0] > start:
                notes.pop()
            notes.append((start, bracket.end()))
    kept: list[str] = []
    place = 0
    for start, end in notes:
        kept.append(text[place:start])
        place = end
    return "".join([*kept, text[place:]])


def _broken(text: str) -> str:
    """Break remaining leaks by a zero-width space behind their first character."""
    text = _TAG.sub(lambda tag: tag[0].replace("<", "<\u200b", 1), text)
    return _NOTE.sub(lambda bracket: "[\u200b" if bracket["note"] else bracket[0], text)


def _cut(window: str) -> int:
    """Return where to cut: behind the last paragraph, sentence or word in the latter part."""
    least = len(window) // 3
    for mark in ("\n\n", "\n", ". ", "! ", "? ", "。", " "):
        found = window.rfind(mark)
        if found >= least:
            return found + len(mark)
    return len(window)
