"""Every error that leaves this package, by what it means for the caller."""

from __future__ import annotations

__all__ = [
    "Ambiguous",
    "Busy",
    "CircuitOpen",
    "Closed",
    "ConfigurationError",
    "Damaged",
    "Disabled",
    "HonchoExecError",
    "Inconclusive",
    "InputError",
    "LaneError",
    "Overloaded",
    "Queued",
    "Rejected",
    "RequestError",
    "SessionDeleted",
    "StateError",
    "SyncPending",
    "Unavailable",
    "Unreached",
]


class HonchoExecError(Exception):
    """Base of all errors of this package.

    Attributes:
        cause: a short, stable class of failure, for programs (`timeout`, `rejected`, `state`, …).
        retryable: whether the same call may succeed later without any change.
        retry_after: seconds after which to try again; None if that is unknown or useless.
    """

    cause: str = "error"
    retryable: bool = False
    retry_after: float | None = None


class ConfigurationError(HonchoExecError):
    """Invalid settings; names all of them at once and prints no secret."""

    cause = "configuration"

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StateError(HonchoExecError):
    """The state folder, a database file or the disk cannot be used."""

    cause = "state"


class Damaged(StateError):  # noqa: N818 - reads as the state it reports
    """A state file is no longer a database."""


class Busy(StateError):  # noqa: N818 - reads as the state it reports
    """Another process keeps a state file locked; nothing was changed."""


class InputError(HonchoExecError):
    """An invalid argument; the message names it and says what is valid."""

    cause = "argument"


class LaneError(HonchoExecError):
    """The lane was used in a way that would deadlock or race."""

    cause = "lane"


class Closed(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The provider is closed; nothing was accepted."""

    cause = "closed"


class Overloaded(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The outbox is full; nothing was accepted."""

    cause = "overloaded"
    retryable = True


class SyncPending(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """A wait for the pending sync timed out; the sync itself goes on.

    Attributes:
        age: seconds since the sync began.
    """

    cause = "sync_pending"
    retryable = True

    def __init__(self, message: str, *, age: float, retry_after: float) -> None:
        super().__init__(message)
        self.age = age
        self.retry_after = retry_after


class Disabled(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """Memory is switched off, or the host's context is read-only."""

    cause = "disabled"


class RequestError(HonchoExecError):
    """A request to Honcho failed; the subclass says whether it was done.

    Attributes:
        status: the HTTP status of the answer; None without an answer.
        by_honcho: whether Honcho answered. An intermediary may answer with an error after Honcho has done the work.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: str,
        status: int | None = None,
        retry_after: float | None = None,
        by_honcho: bool = True,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.retry_after = retry_after
        self.by_honcho = by_honcho


class Rejected(RequestError):  # noqa: N818 - one of three outcomes
    """Honcho refused the request: it was not done, and the same request will be refused again."""


class Unavailable(RequestError):  # noqa: N818 - one of three outcomes
    """The request was not done; trying again is safe."""

    retryable = True


class Unreached(Unavailable):
    """There was no connection, so that no server had any work with the request."""


class SessionDeleted(Unavailable):
    """The session was deleted, and the server has not freed its name yet; its writes wait for that."""

    def __init__(self, session: str, *, retry_after: float) -> None:
        super().__init__(
            f"the session {session} was deleted on the server, which frees the name some five minutes later; what is"
            " said meanwhile is kept and goes into a new session of that name, and what needs no session works",
            cause="session_deleted",
            status=404,
            retry_after=retry_after,
        )
        self.session = session


class CircuitOpen(Unavailable):
    """The request was not made: the circuit breaker is open for `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, cause="circuit_open", retry_after=retry_after)


class Ambiguous(RequestError):  # noqa: N818 - one of three outcomes
    """The request may have been done; verify before trying again.

    Attributes:
        late: seconds for which the server may still work on it.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        cause: str,
        status: int | None = None,
        retry_after: float | None = None,
        late: float = 0.0,
    ) -> None:
        super().__init__(message, cause=cause, status=status, retry_after=retry_after)
        self.late = late


class Inconclusive(RequestError):  # noqa: N818 - reads as the state it reports
    """A look-up reached its bounds without an answer; repeating it would not help."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} are too many to look through", cause="inconclusive")


class Queued(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """A write was not confirmed yet; it is kept and delivered automatically.

    Args:
        reason: why it was not confirmed.
        durable: whether the write is stored; if not, another process locks the outbox.
    """

    def __init__(self, reason: HonchoExecError, *, durable: bool = True) -> None:
        what = "kept" if durable else "not stored yet, since another process locks the outbox. It waits in memory"
        super().__init__(f"{reason}; the write is {what} and will be delivered automatically")
        self.cause = reason.cause
        self.retryable = reason.retryable
        self.retry_after = reason.retry_after
