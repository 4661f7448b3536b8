"""What a person wants removed from every store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from honcho_exec.text.folding import folded

__all__ = ["PurgeFilter"]


@dataclass(frozen=True, slots=True)
class PurgeFilter:
    """What a person wants forgotten: what belongs to a peer or a session, or holds a text; else everything.

    Attributes:
        workspace: only there; None for every workspace.
        text: whatever its case, and however its accents are encoded.
    """

    workspace: str | None = None
    peer: str | None = None
    session: str | None = None
    text: str | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left."""
        return self.peer is None and self.session is None and self.text is None

    def holds(self, said: str) -> bool:
        """Whether what was said holds the chosen text."""
        return self.text is not None and _wanted(self.text) in folded(said)

    def holds_beside(self, metadata: Mapping[str, object]) -> bool:
        """Whether what somebody gave beside a message holds it; what honcho_exec itself keeps there does not count."""
        given = [value for name, value in metadata.items() if not name.startswith("honcho_exec_")]
        return any(map(self.holds, _values(given)))


_wanted = lru_cache(maxsize=4)(folded)


def _values(given: object) -> Iterator[str]:
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list | tuple):
        for value in given:
            yield from _values(value)
    elif isinstance(given, str | int | float):
        yield str(given)
