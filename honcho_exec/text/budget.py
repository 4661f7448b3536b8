"""Fit titled sections into a budget: drop whole sections before cutting a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from honcho_exec.text.cleaning import cut_at_word

__all__ = ["CHARS_PER_TOKEN", "Section", "compose"]

CHARS_PER_TOKEN = 4
"""About how many characters a token has."""

# Where a text may end: behind a line or a sentence.
_END = re.compile(r"(?<=[.!?])\s|\n|(?<=[\u3002\uff01\uff1f])")

# A shortened section keeps at least this many characters, or it is dropped.
_MIN_CHARS = 120
# A section that is cut at a word keeps this many characters after its title.
_MIN_CUT_CHARS = 20
_MORE = " …"


@dataclass(frozen=True, slots=True)
class Section:
    """A text under a title; sections of lower `rank` are kept first."""

    title: str
    text: str
    rank: int = 0


def compose(sections: Sequence[Section], room: int | None) -> str:
    """Join the sections that have text, in order, in at most `room` characters (None: no limit).

    Sections are fitted by rank. One that does not fit is shortened to whole lines or sentences if enough remains, else
    dropped. If none fits, the first by rank is cut at a word.
    """
    shown = [section for section in sections if section.text]
    if room is None:
        return "\n\n".join(_whole(section) for section in shown)
    kept: dict[int, str] = {}
    by_rank = sorted(range(len(shown)), key=lambda place: shown[place].rank)
    for place in by_rank:
        left = room - sum(len(part) + 2 for part in kept.values())
        if part := _fitting(_whole(shown[place]), len(shown[place].title) + 4, left):
            kept[place] = part
    if not kept and shown:
        first = shown[by_rank[0]]
        return cut_at_word(_whole(first), room) if room >= len(first.title) + _MIN_CUT_CHARS else ""
    return "\n\n".join(kept[place] for place in sorted(kept))


def _whole(section: Section) -> str:
    return f"## {section.title}\n{section.text}"


def _fitting(whole: str, head: int, room: int) -> str:
    """Shorten a section to `room` characters; return an empty text if too little is left."""
    if len(whole) <= room:
        return whole
    end = 0
    for found in _END.finditer(whole, head, max(head, room - len(_MORE))):
        end = found.start()
    return whole[:end].rstrip() + _MORE if end - head >= _MIN_CHARS else ""
