"""Frozen values: what may leave the lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "Card",
    "Conclusion",
    "Context",
    "Deletion",
    "Found",
    "Hit",
    "Message",
    "Receipt",
    "Replacement",
    "SessionRef",
    "Write",
]


@dataclass(frozen=True, slots=True)
class SessionRef:
    """Names a session and who takes part in it; says nothing about whether the server has it yet.

    Attributes:
        key: what the session was named after, if several sessions come into question and the lane decides between
            them (`SessionCache.named`); empty if `session` is final.
    """

    workspace: str
    session: str
    user_peer: str
    ai_peer: str
    key: str = ""

    @property
    def scope(self) -> str:
        """What tells the session from all others before it is decided."""
        return f"{self.session} {self.key}" if self.key else self.session


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way to a session.

    Attributes:
        peer: who said it.
        content: at most 25,000 characters (Honcho's limit).
        created_at: when it was said, ISO 8601; None lets the server's clock say.
        metadata: what is stored beside it.
        source_key: names where it came from; a message with the same key is never written twice.
    """

    peer: str
    content: str
    created_at: str | None = None
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)
    source_key: str | None = None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One conclusion of `observer` about `observed`; `id` is the server's, None before it has one."""

    content: str
    observer: str
    observed: str
    id: str | None = None
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """The facts that `observer` keeps as `observed`'s card; the last one written stands."""

    observer: str
    observed: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deletion:
    """The removal of one conclusion."""

    conclusion_id: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """What `observer` holds of `observed` is to have the conclusion `new` and not `old`; either may be empty.

    It names contents and no ids, so that it can be given before the server has ever been reached, and means the same
    when it is delivered again.
    """

    observer: str
    observed: str
    old: str = ""
    new: str = ""


Write = Message | Conclusion | Card | Deletion | Replacement
"""What a row of the outbox writes."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One message that a search found."""

    content: str
    peer: str
    session: str
    created_at: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, the best first; `left_out` says what was not searched, empty if nothing was left out."""

    hits: Sequence[Hit]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What Honcho holds on a peer, and of a session where one was asked for; empty where it holds nothing."""

    summary: str = ""
    representation: str = ""
    card: tuple[str, ...] = ()
    messages: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a write.

    Attributes:
        written: how many messages or conclusions this write added.
        duplicates: how many Honcho already had and were not written again.
    """

    written: int
    duplicates: int = 0
