"""Decide when recall fetches again, counted in turns."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Cadence", "is_trivial"]

# Multiples of the cadence: the longest wait after empty answers, and the age at which a result is stale.
_MAX_WAIT = 8
_STALE_AGE = 2

_PHRASE = (
    r"(?:yes|no|ok(?:ay)?|k|kk|sure|thanks|thank you|thx|ty|y|n|yep|yup|nope|yeah|nah|continue|go (?:ahead|on)|do it"
    r"|proceed|got it|i see|cool|nice|great|good|perfect|awesome|fine|right|alright|exactly|agreed|correct|done|next"
    r"|lgtm|please|hm+|never ?mind"
    r"|ja|nein|danke|oui|merci|s[ií]|gracias|да|нет|спасибо|好的?|是的?|对|谢谢|はい|ありがとう|네)"
)
_TRIVIAL = re.compile(rf"\W*(?:{_PHRASE}(?:\W+{_PHRASE}){{0,3}})?\W*", re.IGNORECASE)
# A path begins with a slash too, and goes on with another.
_COMMAND = re.compile(r"\s*/[a-z][\w-]*(?:\s|\Z)", re.IGNORECASE)
_MAX_TRIVIAL_CHARS = 60


def is_trivial(text: str) -> bool:
    """Return whether a prompt needs no recall: `ok`, `thanks`, a slash command, punctuation only."""
    if _COMMAND.match(text):
        return True
    return len(text) <= _MAX_TRIVIAL_CHARS and _TRIVIAL.fullmatch(text) is not None


@dataclass(slots=True)
class Cadence:
    """Fetches at most once in a number of turns, and more seldom while the answers hold nothing.

    After an answer that holds nothing the next turn may fetch again. After each further one the wait doubles, up to
    eight times the cadence. Turns are numbers that only grow.

    Attributes:
        every: turns between two answers.
        answered: the turn of the last answer that held something; None before there was one.
        tried: the turn of the last answer that held nothing.
        empty: how many of those came in a row.
    """

    every: int
    answered: int | None = None
    tried: int = 0
    empty: int = 0

    def is_due(self, turn: int) -> bool:
        """Return whether to fetch after this turn."""
        if self.empty:
            return turn - self.tried >= min(1 << min(self.empty - 1, 32), _MAX_WAIT * self.every)
        return self.answered is None or turn - self.answered >= self.every

    def is_stale(self, fetched: int, turn: int) -> bool:
        """Return whether a result fetched after one turn is too old in another: older than twice the cadence."""
        return turn - fetched > _STALE_AGE * self.every

    def note_answer(self, turn: int) -> None:
        """Record an answer that held something."""
        self.answered, self.empty = turn, 0

    def note_nothing(self, turn: int) -> None:
        """Record an answer that held nothing."""
        self.tried, self.empty = turn, self.empty + 1
