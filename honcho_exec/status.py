"""How a provider is doing, as one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.clock import Clock
from honcho_exec.errors import HonchoExecError
from honcho_exec.ledger import Ledger, SessionCost
from honcho_exec.settings import LoadedSettings

if TYPE_CHECKING:
    from honcho_exec.conversation import Conversation

__all__ = ["Status", "take"]


@dataclass(frozen=True, slots=True)
class Status:
    """What a person needs to know of a provider; times are ISO 8601, durations in seconds.

    Attributes:
        ok: whether the server answered just now, takes the key, and nothing is parked.
        backend: `embedded`, `server`, `cloud`, or `none` when settings or state cannot be used.
        reachable: whether a real request was answered just now.
        problem: what a person has to do something about.
        llm_calls: requests of this session that a language model answered.
        injected_characters: how many characters were put before this session's turns.
        recalled: the same for each of the 20 sessions that were used last.
    """

    ok: bool
    backend: str
    url: str
    workspace: str
    session: str
    user_peer: str
    ai_peer: str
    state: str
    reachable: bool
    latency: float | None
    problem: str | None
    pending: int
    in_flight: int
    parked: int
    elsewhere: int
    held: int
    oldest_pending_age: float | None
    last_delivery_at: str | None
    last_error: str | None
    last_error_at: str | None
    llm_calls: int
    injected_characters: int
    recalled: tuple[SessionCost, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return asdict(self)


def take(
    conversation: Conversation | None,
    loaded: LoadedSettings | None,
    home: Path,
    trouble: HonchoExecError | None,
    clock: Clock,
    *,
    ledger: Ledger | None = None,
) -> Status:
    """Look at everything once, with a real request to the server."""
    settings = loaded.settings if loaded else None
    latency, problem = None, str(trouble) if trouble else None
    if conversation is not None:
        try:
            latency = conversation.ping()
        except (HonchoExecError, TimeoutError) as error:
            problem = str(error) or f"{conversation.where} did not answer within the sync join timeout"
    counts = history = None
    warnings = loaded.warnings if loaded else ()
    if conversation is not None:
        warnings += tuple(
            f"the outbox was damaged and is kept as {path}; what waited in it was not delivered"
            for path in conversation.outbox.set_aside()
        )
        health, refusal = conversation.delivery.health, conversation.delivery.refusal
        if refusal is not None:
            problem = f"the last turn was not stored: {refusal}"
        elif problem is None and health.failing:
            problem = f"delivery is failing: {health.error}"
        try:
            counts, history = conversation.outbox.counts(), conversation.outbox.history()
        except HonchoExecError as error:
            problem = str(error)
    ref = conversation.ref if conversation else None
    own, recalled = SessionCost(""), list[SessionCost]()
    if ledger is not None and ref is not None:
        try:
            own, recalled = ledger.costs(ref.session)
        except HonchoExecError as error:
            warnings += (f"what recall costs is not known: {error}",)
    return Status(
        ok=latency is not None and problem is None and not (counts and counts.parked),
        backend=settings.backend if settings else "none",
        url=settings.shown_url if settings else "",
        workspace=ref.workspace if ref else "",
        session=ref.session if ref else "",
        user_peer=ref.user_peer if ref else "",
        ai_peer=ref.ai_peer if ref else "",
        state=str(home),
        reachable=latency is not None,
        latency=latency,
        problem=problem,
        pending=counts.pending if counts else 0,
        in_flight=counts.in_flight if counts else 0,
        parked=counts.parked if counts else 0,
        elsewhere=counts.elsewhere if counts else 0,
        held=counts.held if counts else 0,
        oldest_pending_age=clock.now() - counts.oldest_at if counts and counts.oldest_at else None,
        last_delivery_at=_iso(history.delivered_at) if history else None,
        last_error=history.error if history else None,
        last_error_at=_iso(history.error_at) if history else None,
        llm_calls=own.llm_calls,
        injected_characters=own.characters,
        recalled=tuple(recalled),
        warnings=warnings,
    )


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")
