"""How a provider is doing, as one frozen value, and what that means for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from honcho_exec.clock import format_duration
from honcho_exec.recall.usage import SessionCost

__all__ = ["Finding", "Status", "findings"]

# While Honcho answers, rows leave within seconds; what is older than this waits for something else (seconds).
_STUCK = 120.0

_ADVICE = {
    "auth": "set HONCHO_API_KEY to a key that this server takes; what is kept goes by itself then",
    "configuration": "see every value and where it comes from with: honcho-exec config",
    "connection": "see that the server runs and that HONCHO_BASE_URL is right; nothing is lost meanwhile",
    "timeout": "see that the server runs and is not overloaded; nothing is lost meanwhile",
    "server_error": "look into the server's log; nothing is lost meanwhile",
    "bad_answer": "see that HONCHO_BASE_URL is a Honcho server's address, and what a proxy before it does",
    "session_deleted": "nothing is lost: wait until the server frees the name, or begin another session meanwhile",
    "disabled": "set HONCHO_ENABLED=true (or `enabled` in honcho.json) to use it",
    "state": "see that the folder is yours, writable and not full, and what has its files open: honcho-exec doctor",
    "system": "see that the folder is yours, writable and not full, and what has its files open: honcho-exec doctor",
    "overloaded": "bring Honcho back, or raise HONCHO_OUTBOX_MAX_ROWS; see what waits with: honcho-exec outbox list",
    "not_found": "if the session was deleted, its name is free again within five minutes; delivery goes on then",
    "refused": "see what was refused and why with: honcho-exec outbox list; then look into the server's log",
    "rate_limited": "wait, or raise the server's limit; delivery goes on when the server allows it",
    "token": "log in again with: hermes memory setup honcho_exec; or set HONCHO_API_KEY",
    "circuit_open": "wait until the next request is allowed, then look again with: honcho-exec status",
    "sync_pending": "wait a moment, then send what waits with: honcho-exec outbox flush",
    "closed": "this provider was shut down; look with a new process: honcho-exec status",
}
_WATCH = "if this stays so, look at everything with: honcho-exec doctor"

# Warnings that need a person, by what they contain.
_GRAVE = {
    "damaged": "look at the file with sqlite3, then move it to another folder",
    "are lost": "give the lost writes again; stop the programs that use a state folder before you move or restore it",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `note`: worth knowing; `problem`: a person has to do something.
        what: what was seen.
        advice: what to do about it; empty if the level is `ok`.
    """

    level: Literal["ok", "note", "problem"]
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What a person needs to know of a provider; times are ISO 8601, durations in seconds.

    Attributes:
        ok: whether nothing needs a person: the server answered just now, takes the key, and nothing is parked or
            stuck.
        backend: `embedded`, `server`, `cloud`, or `none` when settings or state cannot be used.
        reachable: whether a real request was answered just now.
        key_accepted: whether the server took the key; None when that is not known, or no key is needed.
        problem: what a person has to do something about, and `problem_cause` its class.
        breaker: `closed`, `open` or `half-open`, of this provider; `breaker_retry_in` seconds until it tries again.
        deriving: pieces that the server has stored and not yet derived; None when that is not known.
        unstored: how many writes wait in memory, because another process locks the outbox.
        findings: what all that means, the gravest first.
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
        """The same as plain values, for JSON."""
        return asdict(self)


def findings(status: Status) -> tuple[Finding, ...]:
    """Everything that is not as it should be, and what is worth knowing; the gravest first."""
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
            "see who has it open, with lsof or fuser; they are stored first when it is free",
        )
    age = status.oldest_pending_age
    if status.reachable and age is not None and age > _STUCK:
        yield Finding(
            "problem",
            f"Honcho answers, but a write has been waiting for {format_duration(age)}",
            "see what is in its way with: honcho-exec outbox flush; if another process has it, restart that one",
        )
    if status.reachable and status.problem is None and status.pending > status.held and _fails_elsewhere(status):
        yield Finding(
            "problem",
            f"Honcho answers, but writes are waiting, and the last try to send one failed: {status.last_error}",
            "see what waits with: honcho-exec outbox list; it is tried again automatically",
        )
    for warning in status.warnings:
        for mark, advice in _GRAVE.items():
            if mark in warning:
                yield Finding("problem", warning, advice)


def _fails_elsewhere(status: Status) -> bool:
    """Whether the last that any process saw of delivery was a failure."""
    failed_at, delivered_at = status.last_error_at, status.last_delivery_at
    return failed_at is not None and (delivered_at is None or failed_at > delivered_at)


def _notes(status: Status) -> Iterator[Finding]:
    if status.breaker != "closed":
        yield Finding(
            "note",
            f"the circuit breaker is {status.breaker}; the next request is in {status.breaker_retry_in:.0f} s",
            "nothing is lost meanwhile; look again then with: honcho-exec status",
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
            "ask again later; if the number does not fall, see that the server's deriver runs and has a model",
        )
    for warning in status.warnings:
        if not any(mark in warning for mark in _GRAVE):
            yield Finding("note", warning, "see every value and where it comes from with: honcho-exec config")
