"""What a person wants removed from every store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from unicodedata import combining, normalize

__all__ = ["PurgeFilter"]

# Characters that are decomposed at once. CPython sorts a run of combining marks by insertion, which takes quadratic
# time for one that is long and out of order.
_PIECE_CHARS = 64


@dataclass(frozen=True, slots=True)
class PurgeFilter:
    """What to remove: the data of a peer or a session, or texts that contain a text; else everything.

    Attributes:
        workspace: the workspace; None for all.
        text: compared without regard to case and to the encoding of accents.
    """

    workspace: str | None = None
    peer: str | None = None
    session: str | None = None
    text: str | None = None

    @property
    def everything(self) -> bool:
        """Whether everything is removed."""
        return self.peer is None and self.session is None and self.text is None

    def matches(self, text: str) -> bool:
        """Whether `text` contains the chosen text."""
        return self.text is not None and _folded_once(self.text) in _folded(text)

    def matches_metadata(self, metadata: Mapping[str, object]) -> bool:
        """Whether metadata contains the chosen text; honcho_exec's own entries do not count."""
        own = [value for name, value in metadata.items() if not name.startswith("honcho_exec_")]
        return any(map(self.matches, _values(own)))


def _values(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _values(item)
    elif isinstance(value, str | int | float):
        yield str(value)


def _folded(text: str) -> str:
    """Return Unicode's canonical caseless form, in linear time."""
    return text.lower() if text.isascii() else _decomposed(_decomposed(text).casefold())


def _decomposed(text: str) -> str:
    pieces = "".join(
        normalize("NFD", text[start : start + _PIECE_CHARS]) for start in range(0, len(text), _PIECE_CHARS)
    )
    if len(text) <= _PIECE_CHARS:
        return pieces
    runs = groupby(pieces, key=_is_mark)
    return "".join("".join(sorted(run, key=combining) if is_mark else run) for is_mark, run in runs)


def _is_mark(character: str) -> bool:
    return combining(character) != 0


_folded_once = lru_cache(maxsize=4)(_folded)
