"""Frozen values, which may leave the lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

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
    """The names of a session and its peers; the server may not have them yet.

    Attributes:
        key: the source of the name, if the lane still has to choose between two sessions (`SessionCache.named`);
            empty if `session` is final.
    """

    workspace: str
    session: str
    user_peer: str
    ai_peer: str
    key: str = ""

    @property
    def scope(self) -> str:
        """The session and its key, which identify it before the lane has chosen."""
        return f"{self.session} {self.key}" if self.key else self.session


class _Write:
    """What every kind of write has in common; a kind that differs says so."""

    __slots__ = ()

    kind: ClassVar[str]
    """The name of the kind."""
    is_idempotent: ClassVar[bool] = True
    """Whether a second delivery changes nothing."""

    @property
    def peers(self) -> tuple[str, ...]:
        """The peers that it is by or about."""
        return ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything in it that a person or a model wrote."""
        return ()

    @property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """The conclusions that are stored when it is done."""
        return ()

    def dedup_key(self, _scope: str) -> tuple[str, ...] | None:
        """Return what equal writes to a session have in common, if one of them is enough."""
        return None

    def stream_key(self, scope: str) -> tuple[str, ...]:
        """Return what is equal for writes to a session that are delivered in order, and can share a request."""
        return scope, self.kind


class _About(_Write):
    """A write of what `observer` holds about `observed`."""

    __slots__ = ()

    observer: str
    observed: str

    @property
    def peers(self) -> tuple[str, ...]:
        return self.observer, self.observed

    def stream_key(self, scope: str) -> tuple[str, ...]:
        # It needs its session but none of its messages, so it does not wait behind a backlog of messages.
        return scope, self.kind, self.observer, self.observed


@dataclass(frozen=True, slots=True)
class Message(_Write):
    """One message on its way to a session.

    Attributes:
        peer: its author.
        content: at most 25,000 characters (Honcho's limit).
        created_at: when it was said, ISO 8601; None if the server's clock decides.
        metadata: what is stored with it.
        source_key: names its origin; a message with the same key is never written twice.
    """

    kind = "message"
    is_idempotent = False

    peer: str
    content: str
    created_at: str | None = None
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)
    source_key: str | None = None

    @property
    def peers(self) -> tuple[str, ...]:
        """The author."""
        return (self.peer,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The content."""
        return (self.content,)

    def dedup_key(self, scope: str) -> tuple[str, ...] | None:
        """Return the session and the source key, if there is one."""
        return None if self.source_key is None else (self.kind, scope, self.source_key)


@dataclass(frozen=True, slots=True)
class Conclusion(_About):
    """One conclusion of `observer` about `observed`; `id` is the server's, None before it has one."""

    kind = "conclusion"
    is_idempotent = False

    content: str
    observer: str
    observed: str
    id: str | None = None
    created_at: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The content."""
        return (self.content,)

    @property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """The conclusion itself."""
        return (self,)

    def dedup_key(self, _scope: str) -> tuple[str, ...]:
        """Return its peers and content, whatever the session."""
        return self.kind, self.observer, self.observed, self.content


@dataclass(frozen=True, slots=True)
class Card(_About):
    """The facts that `observer` keeps as `observed`'s card; the last one written stands."""

    kind = "card"

    observer: str
    observed: str
    facts: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The facts."""
        return self.facts


@dataclass(frozen=True, slots=True)
class Deletion(_Write):
    """The deletion of one conclusion."""

    kind = "deletion"

    conclusion_id: str

    def dedup_key(self, _scope: str) -> tuple[str, ...]:
        """Return the id, whatever the session."""
        return self.kind, self.conclusion_id


@dataclass(frozen=True, slots=True)
class Replacement(_About):
    """Has `observer` hold the conclusion `new` about `observed`, and not `old`; either may be empty.

    It names contents instead of ids, so that it can be admitted before the server was ever reached, and means the same
    when it is delivered again.
    """

    kind = "replacement"

    observer: str
    observed: str
    old: str = ""
    new: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Both contents."""
        return self.old, self.new

    @property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """The new conclusion, if there is one."""
        return (Conclusion(self.new, self.observer, self.observed),) if self.new else ()

    def stream_key(self, _scope: str) -> tuple[str, ...]:
        """Return its peers, whatever the session: it may delete what another session wrote."""
        return "", self.kind, self.observer, self.observed


Write = Message | Conclusion | Card | Deletion | Replacement
"""What a row of the outbox writes. `delivery.requests` knows how each kind is sent."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A message found by a search."""

    content: str
    peer: str
    session: str
    created_at: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, best first; `left_out` says what was not searched."""

    hits: Sequence[Hit]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What Honcho knows about a peer, and about a session if one was asked for."""

    summary: str = ""
    representation: str = ""
    card: tuple[str, ...] = ()
    messages: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a write.

    Attributes:
        written: how many messages or conclusions this write added.
        duplicates: how many Honcho already had and were not written again.
    """

    written: int
    duplicates: int = 0
