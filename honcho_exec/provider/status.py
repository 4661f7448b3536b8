"""The status of a provider, and what a person should do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from honcho_exec.clock import format_duration
from honcho_exec.recall.usage import SessionCost

__all__ = ["Finding", "Status", "findings"]

# While Honcho answers, rows are delivered within seconds; an older row is stuck.
_STUCK_SECONDS = 120.0

_CHECK_FOLDER = "check that the folder is yours, writable and not full, and what has its files open: honcho-exec doctor"
_ADVICE = {
    "auth": "set HONCHO_API_KEY to a key that this server accepts; pending writes are delivered automatically then",
    "configuration": "see every value and where it comes from with: honcho-exec config",
    "connection": "check that the server runs and that HONCHO_BASE_URL is right; nothing is lost meanwhile",
    "timeout": "check that the server runs and is not overloaded; nothing is lost meanwhile",
    "server_error": "read the server's log; nothing is lost meanwhile",
    "bad_answer": "check that HONCHO_BASE_URL is a Honcho server, and that no proxy changes its answers",
    "session_deleted": "nothing is lost: wait until the server frees the name, or begin another session meanwhile",
    "disabled": "set HONCHO_ENABLED=true (or `enabled` in honcho.json) to use it",
    "state": _CHECK_FOLDER,
    "system": _CHECK_FOLDER,
    "overloaded": "restart Honcho, or raise HONCHO_OUTBOX_MAX_ROWS; list pending writes with: honcho-exec outbox list",
    "not_found": "if the session was deleted, its name is free again within five minutes; delivery goes on then",
    "refused": "list what was refused and why with: honcho-exec outbox list; then read the server's log",
    "rate_limited": "wait, or raise the server's limit; delivery goes on when the server allows it",
    "token": "log in again with: hermes memory setup honcho_exec; or set HONCHO_API_KEY",
    "circuit_open": "wait until the next request is allowed, then check again with: honcho-exec status",
    "sync_pending": "wait a moment, then send pending writes with: honcho-exec outbox flush",
    "closed": "this provider was shut down; check with a new process: honcho-exec status",
}
_WATCH = "if this persists, check everything with: honcho-exec doctor"

# The warnings that need a person, by words in them.
_GRAVE = {
    "damaged": "inspect the file with sqlite3, then move it to another folder",
    "are lost": "repeat the lost writes; stop the programs that use a state folder before you move or restore it",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: `ok`; `note`: worth knowing; `problem`: a person has to do something.
        what: the result.
        advice: what to do about it; empty if the level is `ok`.
    """

    level: Literal["ok", "note", "problem"]
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a provider; times are ISO 8601, durations in seconds.

    Attributes:
        ok: whether nothing needs a person: the server answered, accepts the key, and nothing is parked or stuck.
        backend: `embedded`, `server`, `cloud`, or `none` when settings or state cannot be used.
        reachable: whether a request was answered just now.
        key_accepted: whether the server accepted the key; None if that is not known, or no key is needed.
        problem: the gravest problem, and `problem_cause` its class.
        breaker: `closed`, `open` or `half-open`, of this provider; `breaker_retry_in` seconds until it tries again.
        deriving: pieces that the server has stored and not yet derived; None if that is not known.
        unstored: writes that wait in memory, because another process locks the outbox.
        findings: what this means, the gravest first.
        llm_calls: requests of this session that a language model answered.
        injected_characters: characters put before this session's turns.
        recalled: the same for each of the 20 sessions used last.
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
    key_accepted: bool | None
    latency: float | None
    problem: str | None
    problem_cause: str | None
    breaker: str
    breaker_retry_in: float
    pending: int
    in_flight: int
    parked: int
    elsewhere: int
    held: int
    unstored: int
    oldest_pending_age: float | None
    last_delivery_at: str | None
    last_success_at: str | None
    last_error: str | None
    last_error_at: str | None
    llm_calls: int
    injected_characters: int
    recalled: tuple[SessionCost, ...]
    deriving: int | None
    sdk_version: str
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)


def findings(status: Status) -> tuple[Finding, ...]:
    """Return the problems and notes, the gravest first."""
    found = [*_problems(status), *_notes(status)]
    return tuple(sorted(found, key=lambda finding: finding.level != "problem"))


def _problems(status: Status) -> Iterator[Finding]:
    if status.problem is not None:
        yield Finding("problem", status.problem, _ADVICE.get(status.problem_cause or "", _WATCH))
    if status.parked:
        yield Finding(
            "problem",
            f"{status.parked} writes are parked: Honcho refused them, and nothing waits for them",
            "see why with: honcho-exec outbox list --parked; then retry or drop them",
        )
    if status.unstored:
        yield Finding(
            "problem",
            f"{status.unstored} writes are not durable yet: they wait in memory, since another process locks outbox.db",
            "find the process with lsof or fuser; the writes are stored first when it releases the lock",
        )
    age = status.oldest_pending_age
    if status.reachable and age is not None and age > _STUCK_SECONDS:
        yield Finding(
            "problem",
            f"Honcho answers, but a write has been waiting for {format_duration(age)}",
            "see the reason with: honcho-exec outbox flush; if another process holds it, restart that process",
        )
    if status.reachable and status.problem is None and status.pending > status.held and _fails_elsewhere(status):
        yield Finding(
            "problem",
            f"Honcho answers, but writes are waiting, and the last try to send one failed: {status.last_error}",
            "list pending writes with: honcho-exec outbox list; they are retried automatically",
        )
    for warning in status.warnings:
        for mark, advice in _GRAVE.items():
            if mark in warning:
                yield Finding("problem", warning, advice)


def _fails_elsewhere(status: Status) -> bool:
    """Return whether the last delivery attempt of any process failed."""
    failed_at, delivered_at = status.last_error_at, status.last_delivery_at
    return failed_at is not None and (delivered_at is None or failed_at > delivered_at)


def _notes(status: Status) -> Iterator[Finding]:
    if status.breaker != "closed":
        yield Finding(
            "note",
            f"the circuit breaker is {status.breaker}; the next request is in {status.breaker_retry_in:.0f} s",
            "nothing is lost meanwhile; check again then with: honcho-exec status",
        )
    if status.pending and not status.reachable:
        yield Finding(
            "note",
            f"{status.pending} writes are kept and delivered when Honcho answers again",
            "see them with: honcho-exec outbox list",
        )
    if status.held:
        yield Finding(
            "note",
            f"{status.held} writes are held back by writeFrequency",
            "they are sent at the end of the session; HONCHO_WRITE_FREQUENCY=async sends each turn at once",
        )
    if status.elsewhere:
        yield Finding(
            "note",
            f"{status.elsewhere} writes wait for another server or workspace than the present settings choose",
            "see them with: honcho-exec outbox list --all; if that address was wrong, send them to the Honcho in use"
            " with: honcho-exec outbox redirect",
        )
    if status.deriving:
        yield Finding(
            "note",
            f"{status.deriving} pieces are stored but not yet derived by the server",
            "check again later; if the number does not fall, check that the server's deriver runs and has a model",
        )
    for warning in status.warnings:
        if not any(mark in warning for mark in _GRAVE):
            yield Finding("note", warning, "see every value and where it comes from with: honcho-exec config")
