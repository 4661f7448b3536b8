"""Compare texts whatever their case, and however their accents are encoded."""

from __future__ import annotations

from itertools import groupby
from typing import Literal
from unicodedata import combining, normalize

__all__ = ["folded"]

# Characters that are decomposed at once. CPython sorts a run of combining marks by insertion, which takes quadratic
# time for one that is long and out of order.
_PIECE = 64


def folded(text: str, form: Literal["NFD", "NFKD"] = "NFD") -> str:
    """Return Unicode's canonical (NFKD: compatibility) caseless form, in linear time."""
    return text.lower() if text.isascii() else _decomposed(_decomposed(text, form).casefold(), form)


def _decomposed(text: str, form: Literal["NFD", "NFKD"]) -> str:
    pieces = "".join(normalize(form, text[place : place + _PIECE]) for place in range(0, len(text), _PIECE))
    if len(text) <= _PIECE:
        return pieces
    runs = groupby(pieces, key=_is_mark)
    return "".join("".join(sorted(run, key=combining) if is_mark else run) for is_mark, run in runs)


def _is_mark(character: str) -> bool:
    return combining(character) != 0
