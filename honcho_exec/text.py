"""What happens to a text before it is stored or sent: cleaned, made harmless, split."""

from __future__ import annotations

import re

__all__ = ["CONTINUED", "clean", "cut_at_word", "plain_text", "split"]

CONTINUED = "[continued] "
"""Marks every part of a split message but the first, as the bundled provider does."""

_FENCE = re.compile(r"<\s*memory-context\s*>.*?<\s*/\s*memory-context\s*>", re.IGNORECASE | re.DOTALL)
_OPEN_FENCE = re.compile(
    r"(?:^|\n)[ \t]*<\s*memory-context\s*>[ \t]*\r?\n\s*\[System note:.*\Z", re.IGNORECASE | re.DOTALL
)
_NOTE = re.compile(r"\[System note:\s*The following is recalled memory context,[^\]]*\]\s*", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")

# Honcho counts tokens with a tokenizer that refuses these in ordinary text: two of them answer 422 for the
# whole batch, the other three 500. A zero-width space after the bracket leaves them readable and harmless.
_SPECIAL_TOKEN = re.compile(r"<(?=\|(?:endoftext|endofprompt|fim_prefix|fim_middle|fim_suffix)\|>)")


def plain_text(value: object) -> str | None:
    """The text of a message's content: a string, None (empty), or a list of OpenAI-style parts.

    Returns None for anything else.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part if isinstance(part, str) else part.get("text") for part in value if isinstance(part, str | dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return None


def clean(text: str) -> str:
    """Return `text` as Honcho takes it and as it was said.

    Recalled memory that leaked into it is taken out, NUL dropped, a lone surrogate becomes U+FFFD, and the
    tokenizer's special tokens are broken by a zero-width space. Cleaning twice changes nothing more.
    """
    text = _SURROGATE.sub("\ufffd", text.replace("\x00", ""))
    while True:
        cleaned = _NOTE.sub("", _OPEN_FENCE.sub("", _FENCE.sub("", text)))
        if cleaned == text:
            break
        text = cleaned
    return _SPECIAL_TOKEN.sub("<\u200b", text).strip()


def split(text: str, limit: int) -> list[str]:
    """Split a cleaned text into parts of at most `limit` characters, every part but the first marked.

    Cuts fall after a paragraph, else a sentence, else a word, else anywhere, so that the parts without their
    marks are the text again, to the letter. A limit of 25,000 is Honcho's own.
    """
    if len(text) <= limit:
        return [text] if text else []
    parts = []
    start, room, mark = 0, limit, ""
    while len(text) - start > room:
        end = start + _cut(text[start : start + room])
        parts.append(mark + text[start:end])
        start, room, mark = end, limit - len(CONTINUED), CONTINUED
    parts.append(mark + text[start:])
    return parts


def cut_at_word(text: str, limit: int) -> str:
    """Return `text`, cut to at most `limit` characters at the end of a word and marked with an ellipsis."""
    if len(text) <= limit:
        return text
    if limit < 2:  # noqa: PLR2004 - no room for a letter and the ellipsis
        return ""
    head = text[: limit - 1]
    space = head.rfind(" ")
    return (head[:space] if space > 0 else head).rstrip() + "…"


def _cut(window: str) -> int:
    """Where to cut the window: behind the last paragraph, sentence or word in its latter part."""
    least = len(window) // 3
    for mark in ("\n\n", "\n", ". ", "! ", "? ", "。", " "):
        found = window.rfind(mark)
        if found >= least:
            return found + len(mark)
    return len(window)
