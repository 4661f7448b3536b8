"""When recall asks again, counted in turns."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Cadence", "is_trivial"]

_WIDEST = 8
_STALE = 2

_PHRASE = (
    r"(?:yes|no|ok(?:ay)?|k|kk|sure|thanks|thank you|thx|ty|y|n|yep|yup|nope|yeah|nah|continue|go (?:ahead|on)|do it"
    r"|proceed|got it|i see|cool|nice|great|good|perfect|awesome|fine|right|alright|exactly|agreed|correct|done|next"
    r"|lgtm|please|hm+|never ?mind"
    r"|ja|nein|danke|oui|merci|s[ií]|gracias|да|нет|спасибо|好的?|是的?|对|谢谢|はい|ありがとう|네)"
)
_TRIVIAL = re.compile(rf"\W*(?:{_PHRASE}(?:\W+{_PHRASE}){{0,3}})?\W*", re.IGNORECASE)
# A path begins with a slash too, and goes on with another.
_COMMAND = re.compile(r"\s*/[a-z][\w-]*(?:\s|\Z)", re.IGNORECASE)
_LONGEST_TRIVIAL = 60


def is_trivial(text: str) -> bool:
    """Whether a prompt asks for nothing to be recalled: `ok`, `thanks`, a slash command, signs only."""
    if _COMMAND.match(text):
        return True
    return len(text) <= _LONGEST_TRIVIAL and _TRIVIAL.fullmatch(text) is not None


@dataclass(slots=True)
class Cadence:
    """Asks at most every so many turns, and seldom when the answers hold nothing.

    An answer that holds nothing does not use up the cadence: the next turn may ask again. After each further one
    the wait doubles, up to eight times the cadence. Turns are numbers that only grow.

    Attributes:
        every: turns between two answers.
        answered: the turn of the last answer that held something; None before there was one.
        tried: the turn of the last one that held nothing.
        empty: how many of those came in a row.
    """

    every: int
    answered: int | None = None
    tried: int = 0
    empty: int = 0

    def due(self, turn: int) -> bool:
        """Whether to ask after this turn."""
        if self.empty:
            return turn - self.tried >= min(1 << min(self.empty - 1, 32), _WIDEST * self.every)
        return self.answered is None or turn - self.answered >= self.every

    def stale(self, asked: int, turn: int) -> bool:
        """Whether what was asked for after one turn is too old in another: older than twice the cadence."""
        return turn - asked > _STALE * self.every

    def note_answer(self, turn: int) -> None:
        """Something came of what was asked after this turn."""
        self.answered, self.empty = turn, 0

    def note_nothing(self, turn: int) -> None:
        """Nothing came of it."""
        self.tried, self.empty = turn, self.empty + 1
