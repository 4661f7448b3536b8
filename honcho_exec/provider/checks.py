"""Collect the status of a provider, with a request to the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.clock import Clock, iso_time
from honcho_exec.errors import HonchoExecError, RequestError, StateError
from honcho_exec.outbox.rows import Counts, History
from honcho_exec.provider.status import Status, findings
from honcho_exec.recall.usage import RecallUsage, SessionCost
from honcho_exec.settings import LoadedSettings
from honcho_exec.storage.folders import access_warnings
from honcho_exec.storage.pool import incidents

if TYPE_CHECKING:
    from honcho_exec.conversation.conversation import Conversation

__all__ = ["collect_status"]

# The wait for a session that is being opened, before that is reported as the problem.
_OPENING_SECONDS = 3.0


def collect_status(
    conversation: Conversation | None,
    loaded: LoadedSettings | None,
    home: Path,
    trouble: HonchoExecError | None,
    clock: Clock,
    *,
    usage: RecallUsage | None = None,
) -> Status:
    """Check everything once, with a request to the server."""
    settings = loaded.settings if loaded else None
    seen = _Observations(trouble=trouble)
    warnings = loaded.warnings if loaded else ()
    if conversation is not None:
        seen.collect(conversation)
        warnings += tuple(
            f"the outbox was damaged and is kept as {path}; what waited in it was not delivered"
            for path in conversation.outbox.file.damaged_files()
        )
    warnings += tuple(access_warnings(home))
    warnings += tuple(str(incident) for incident in incidents(home))
    ref = conversation.shown if conversation else None
    own, recalled = SessionCost(""), list[SessionCost]()
    if usage is not None and conversation is not None:
        try:
            own, recalled = usage.costs(conversation.ref.session)
        except HonchoExecError as error:
            warnings += (f"what recall costs is not known: {error}",)
    counts, history = seen.counts, seen.history
    delivered_at = iso_time(history.delivered_at) if history and history.delivered_at is not None else None
    status = Status(
        ok=False,
        backend=settings.backend if settings else "none",
        url=settings.shown_url if settings else "",
        workspace=ref.workspace if ref else "",
        session=ref.session if ref else "",
        user_peer=ref.user_peer if ref else "",
        ai_peer=ref.ai_peer if ref else "",
        state=str(home),
        reachable=seen.latency is not None,
        key_accepted=seen.key_accepted if settings and settings.backend != "embedded" else None,
        latency=seen.latency,
        problem=str(seen.trouble) or "no answer in time" if seen.trouble else None,
        problem_cause=seen.trouble.cause if seen.trouble else None,
        breaker=conversation.breaker.state if conversation else "closed",
        breaker_retry_in=conversation.breaker.remaining() if conversation else 0.0,
        pending=counts.pending if counts else 0,
        in_flight=counts.in_flight if counts else 0,
        parked=counts.parked if counts else 0,
        elsewhere=counts.elsewhere if counts else 0,
        held=counts.held if counts else 0,
        unstored=counts.unstored if counts else 0,
        oldest_pending_age=_age(counts, conversation, clock),
        last_delivery_at=delivered_at,
        last_success_at=iso_time(clock.now()) if seen.latency is not None else delivered_at,
        last_error=history.error if history else None,
        last_error_at=iso_time(history.error_at) if history and history.error_at is not None else None,
        llm_calls=own.llm_calls,
        injected_characters=own.characters,
        recalled=tuple(recalled),
        deriving=seen.deriving,
        sdk_version=_sdk_version(),
        warnings=warnings,
    )
    found = findings(status)
    needs_person = any(finding.level == "problem" for finding in found)
    return replace(status, findings=found, ok=status.reachable and not needs_person)


@dataclass(slots=True)
class _Observations:
    """What the server and the outbox answer; `trouble` is the gravest problem."""

    trouble: HonchoExecError | None
    latency: float | None = None
    key_accepted: bool | None = None
    deriving: int | None = None
    counts: Counts | None = None
    history: History | None = None

    def collect(self, conversation: Conversation) -> None:
        self._ping(conversation)
        delivery = conversation.delivery
        if delivery.turns.refusal is not None:
            self.trouble = StateError(f"the last turn was not stored: {delivery.turns.refusal}")
        elif self.trouble is None and delivery.health.failing and delivery.health.error is not None:
            self.trouble = _Failing(delivery.health.error)
        elif self.trouble is None and delivery.deleted.error() is not None:
            self.trouble = delivery.deleted.error()
        elif self.trouble is None:
            self.trouble = conversation.not_open(_OPENING_SECONDS)
        try:
            self.counts, self.history = conversation.outbox.inspection.counts(), conversation.outbox.history.last()
            conversation.outbox.file.probe()
        except HonchoExecError as error:
            self.trouble = error

    def _ping(self, conversation: Conversation) -> None:
        try:
            self.latency = conversation.reader.ping()
            self.key_accepted = True
            self.deriving = conversation.reader.deriving()
        except TimeoutError:
            self.trouble = RequestError(
                f"{conversation.where} did not answer within the sync join timeout", cause="timeout"
            )
        except HonchoExecError as error:
            self.trouble = error
            self.key_accepted = False if error.cause == "auth" else None


class _Failing(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """Delivery fails."""

    def __init__(self, error: HonchoExecError) -> None:
        super().__init__(f"delivery is failing: {error}")
        self.cause = error.cause


def _age(counts: Counts | None, conversation: Conversation | None, clock: Clock) -> float | None:
    """Return the age of the oldest pending write; a clock that was set back hides at most other processes' writes."""
    if counts is None or counts.oldest_at is None:
        return None
    waited = conversation.delivery.turns.age() if conversation is not None else None
    return max(0.0, clock.now() - counts.oldest_at, waited or 0.0)


def _sdk_version() -> str:
    try:
        return version("honcho-ai")
    except PackageNotFoundError:
        return ""
