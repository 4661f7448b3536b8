"""One conversation's way to Honcho: its lane, its outbox, and what a tool call waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from honcho_exec.client.connection import Connection
from honcho_exec.client.session_store import Known, NamedSession
from honcho_exec.clock import Clock, Deadline
from honcho_exec.conversation.hold import Hold
from honcho_exec.conversation.opening import Opening
from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.delivery.pump import Delivery
from honcho_exec.errors import (
    Disabled,
    HonchoExecError,
    Queued,
    Rejected,
    RequestError,
    SessionDeleted,
    StateError,
    SyncPending,
)
from honcho_exec.model import Message, Receipt, SessionRef, Write
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.runtime.offload import offload
from honcho_exec.runtime.pace import embedded_pace
from honcho_exec.settings import Settings

if TYPE_CHECKING:
    # It takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Conversation", "open_outbox"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# What a caller is told to wait when nothing is known of when the sync will end (seconds).
_ASK_AGAIN = 2.0

# What is only good to know is waited for so long (seconds).
_NOT_WORTH_MORE = 3.0

# What a job that has begun gets when everything is closed, before and after it is cut off (seconds).
_GRACE = 0.5


def open_outbox(settings: Settings, ref: SessionRef, home: Path, holder: Holder, clock: Clock) -> Outbox:
    """The outbox in a state folder, as `holder` and for the destination that the settings choose.

    Raises:
        StateError: its file cannot be used.
    """
    return Outbox(
        home / "outbox.db",
        destination=settings.destination(ref.workspace),
        holder=holder,
        clock=clock,
        max_rows=settings.outbox_max_rows,
    )


class Conversation:
    """What the tools, recall and the provider share: `ref`, reads on the caller's thread, writes by the outbox.

    Nothing is requested and the SDK is not imported before the lane's first job; `begin` queues it.

    Args:
        home: the state folder.
        meter: what is counted and timed.
        grant: where the key's OAuth grant stands, if it is from one.
        writes: False refuses every write.
        notice: told on a thread of its own, with the error, that delivery begins to fail, and with None that it works
            again.

    Raises:
        StateError: the outbox's file cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        ref: SessionRef,
        home: Path,
        clock: Clock,
        *,
        meter: Meter,
        grant: GrantFile | None = None,
        writes: bool = True,
        notice: Callable[[HonchoExecError | None], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._writes = writes
        self._ref = ref
        self._home = home
        self._clock = clock
        self._decided: dict[SessionRef, SessionRef] = {}
        self._closing = threading.Event()
        self._asking = threading.local()
        self._waited_out: str | None = None
        self._meter = meter
        self.breaker = Breaker(
            self.where, threshold=settings.breaker_threshold, cooldown=settings.breaker_cooldown, clock=clock
        )
        self._retry = RetryPolicy(
            attempts=settings.retry_attempts,
            max_wait=settings.retry_max_wait,
            deadline=settings.retry_deadline,
            closing=self._closing,
            breaker=self.breaker,
            clock=clock,
            on_retry=partial(meter.count, "retried"),
        )
        self._holder = Holder(home / "holders")
        self.outbox = open_outbox(settings, ref, home, self._holder, clock)
        self.lane = Lane(abandon=self.abandon)
        self._opening = Opening(
            self._session, self.lane, (self.outbox.path, self.outbox.destination), self.breaker, clock
        )
        self._connection = Connection(
            self.lane,
            settings,
            home,
            ref.workspace,
            clock=clock,
            breaker=self.breaker,
            meter=meter,
            grant=grant,
            speakers=self.outbox.speakers,
        )
        self.delivery = Delivery(
            lane=self.lane,
            outbox=self.outbox,
            connection=self._connection,
            retry=self._retry,
            breaker=self.breaker,
            meter=meter,
            clock=clock,
            slow_after=settings.sync_join_timeout / 2,
            notice=notice,
            pace=embedded_pace() if settings.backend == "embedded" else None,
        )
        enough = settings.write_frequency if isinstance(settings.write_frequency, int) else None
        self._hold = Hold(self.delivery, home / "holders", enough=enough)

    @property
    def ref(self) -> SessionRef:
        """The present session, whether the server has it or not, and whether it is decided or not."""
        return self._ref

    def decided(self, ref: SessionRef) -> SessionRef:
        """`ref` with the session that its key goes to, as the lane has decided.

        Raises:
            SyncPending: the lane has not decided yet.
        """
        found = self._decided.get(ref) if ref.key else ref
        if found is None:
            raise self._pending("deciding on the session", self._opening.age)
        return found

    @property
    def shown(self) -> SessionRef:
        """The present session for a person to see: the decided one, if there is one yet."""
        return self._decided.get(self._ref, self._ref)

    def earlier_sessions(self) -> list[NamedSession]:
        """What was decided about sessions of earlier versions, for every conversation of this destination."""
        known = Known(self._home / "known.db", destination=self.outbox.destination, clock=self._clock)
        return known.names()

    @property
    def where(self) -> str:
        """Which Honcho this talks to, for messages."""
        return "the embedded Honcho" if self._settings.backend == "embedded" else self._settings.shown_url

    def begin(self) -> None:
        """Queue the lane's first job: making the session. What earlier processes left is delivered behind it.

        Where nothing is injected the session is made when a turn or a tool needs it, if `initOnSessionStart` is false;
        by runs that only read it is not made at all.
        """
        if self._writes and (self._settings.recall_mode != "tools" or self._settings.init_on_session_start):
            self._opening.begin(self._ref)
        self.delivery.pump()

    def switch(self, ref: SessionRef) -> None:
        """Go on in another session of the same workspace; what was given before stays where it was given."""
        self._release()
        self._ref = ref
        if self._opening.begun:
            self._opening.begin(ref)

    def sync(self, writes: Sequence[Write], ref: SessionRef | None = None) -> TurnFuture:
        """Store messages durably; tool calls wait for the Future before they read."""
        self._connection.busy()
        if self._hold and any(isinstance(write, Message) for write in writes):
            # They may stand behind turns that are held back, in the same session.
            self._release()
        return self.delivery.admit(ref or self._ref, writes, awaited=True)

    def turn(self, writes: Sequence[Write], ref: SessionRef) -> TurnFuture:
        """Store a turn durably, and send it when `writeFrequency` says so; takes no lock on the caller's thread.

        Only turns of the present session are held back. In the mode `turn` this waits for the delivery, at most the
        sync join timeout, unless it is known to take longer.
        """
        if self._settings.write_frequency == "async":
            return self.sync(writes, ref)
        return offload(partial(self._turn, writes, ref))

    def _turn(self, writes: Sequence[Write], ref: SessionRef) -> TurnFuture:
        frequency = self._settings.write_frequency
        if frequency == "turn" or ref != self._ref or not writes:
            future = self.sync(writes, ref)
            if frequency == "turn":
                self._wait_for(future)
            return future
        self._connection.busy()
        future = self._hold.turn(ref, writes)
        if self._hold.complete:
            self._release()
        return future

    def _wait_for(self, future: TurnFuture) -> None:
        oldest = self.delivery.oldest_turn()
        if self.delivery.health.failing or (oldest is not None and oldest == self._waited_out):
            return
        self._connection.wanted()
        if not future.wait(self._settings.sync_join_timeout):
            self._waited_out = oldest

    def _release(self) -> None:
        """Send what was held back; tool calls wait for it from now on."""
        if (last := self._hold.release()) is not None:
            self.delivery.last_sync = last

    def write(self, write: Write) -> TurnFuture:
        """See `tools.Memory.write`."""
        if not self._writes:
            raise Disabled("this run only reads: cron, flush, subagent and read runs write nothing")
        return self.delivery.admit(self._ref, [write])

    def settled(self, future: TurnFuture) -> Receipt:
        """See `tools.Memory.settled`; raises `Queued` when the write is kept but not confirmed."""
        deadline = Deadline.after(self._settings.sync_join_timeout, self._clock)
        try:
            self._await_sync(deadline)
        except (SyncPending, RequestError) as error:
            if not future.done():
                raise Queued(error, durable=future.durable) from error
        try:
            return future.result(deadline.remaining())
        except TimeoutError:
            raise Queued(self._pending("the write", self._sync_age()), durable=future.durable) from None
        except RequestError as error:
            if isinstance(error, Rejected) and error.cause != "auth":
                raise
            raise Queued(error) from error

    def ready(self) -> SessionRef:
        """See `tools.Memory.ready`."""
        self.breaker.refuse()
        ref = self._ref
        deadline = Deadline.after(self._settings.sync_join_timeout, self._clock)
        self._await_sync(deadline)
        self.opened(deadline)
        self._asking.since = self._clock.monotonic()
        return self.decided(ref)

    def read(self, request: Callable[[HonchoApi], T]) -> T:
        """See `tools.Memory.read`: all reads of one tool call share its deadline."""
        deadline = self._since_ready(self._settings.retry_deadline)
        api = self._connection.api
        with api.within(deadline):
            return self._retry.call(lambda: request(api), deadline=deadline)

    def chat(self, request: Callable[[HonchoApi], T]) -> T:
        """See `tools.Memory.chat`: once, within the request timeout; it is too dear to be tried again unasked."""
        api = self._connection.api
        with api.within(self._since_ready(self._settings.timeout)):
            return request(api)

    def _since_ready(self, seconds: float) -> Deadline:
        """The moment `seconds` after this thread's tool call had what it waited for."""
        since: float = getattr(self._asking, "since", self._clock.monotonic())
        return Deadline(since + seconds, self._clock)

    def opened(self, deadline: Deadline | None = None) -> HonchoApi:
        """Wait until the session is there and return the API; opens it anew when that failed before.

        Raises:
            SyncPending: it is still being opened at the deadline (the sync join timeout when None is given).
            RequestError, StateError: it cannot be opened.
        """
        deadline = deadline or Deadline.after(self._settings.sync_join_timeout, self._clock)
        patience = self._opening.patience(deadline.remaining())
        try:
            self._opening.begin(self._ref).result(patience)
        except SessionDeleted:
            # Most of what is read needs no session; `deleted` says what is wrong.
            pass
        except TimeoutError:
            raise self._opening_pending() from None
        return self._connection.api

    def deleted(self) -> SessionDeleted | None:
        """Why the present session is not there, if it was deleted and its name is not free yet."""
        error = self._opening.failure(0.0)
        return error if isinstance(error, SessionDeleted) else self.delivery.deleted(self.shown.session)

    def not_open(self, patience: float = 0.0) -> HonchoExecError | None:
        """What keeps the session from being opened, after waiting `patience` seconds for it; or None."""
        match self._opening.failure(patience):
            case TimeoutError():
                return self._pending("opening the session", self._opening.age)
            case HonchoExecError() as error:
                return error
        return None

    def _opening_pending(self) -> SyncPending:
        pending = self._pending("opening the session", self._opening.age)
        if self._opening.wait_out():
            self._meter.count("join_timeouts")
            _log.warning("the session was not waited for any longer: %s", pending)
        return pending

    def ping(self) -> float:
        """Make a request that needs a valid key; returns the seconds it took.

        Raises:
            RequestError, StateError: it failed, or took longer than the sync join timeout.
            TimeoutError: the lane did not open the connection in that time.
        """
        deadline = Deadline.after(self._settings.sync_join_timeout, self._clock)
        self._connection.wanted()
        if not self._connection.is_open:
            self.lane.call(self._connection.open, deadline.remaining())
        start = self._clock.monotonic()
        api = self._connection.api
        with api.within(deadline):
            api.ping()
        return self._clock.monotonic() - start

    def deriving(self) -> int | None:
        """How many pieces the server has stored and not yet derived; None when it does not say (in time)."""
        if self._settings.backend == "embedded":
            return None
        api = self._connection.api
        try:
            with api.within(Deadline.after(_NOT_WORTH_MORE, self._clock)):
                return api.deriving()
        except RequestError:
            return None

    def server_version(self) -> str | None:
        """The version that the server says it has; None when it does not say (in time)."""
        return self._connection.api.server_version(Deadline.after(_NOT_WORTH_MORE, self._clock))

    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds until nothing is left to send; returns how many rows are."""
        self._release()
        self._connection.wanted()
        return self.delivery.drain(Deadline.after(timeout, self._clock), patient=True)

    def join(self) -> bool:
        """Send what was held back and wait for the pending sync, at most its timeout; whether it is settled."""
        self._release()
        try:
            self._await_sync(Deadline.after(self._settings.sync_join_timeout, self._clock))
        except (SyncPending, RequestError, StateError):
            return False
        return True

    def close(self, timeout: float | None = None) -> int:
        """Drain at most `timeout` seconds, cut what hangs, and return how many rows are left for later.

        Without a timeout the shutdown timeout counts. Everything is given back even where one step fails; the first
        failure is raised then.
        """
        patience = self._settings.shutdown_timeout if timeout is None else timeout
        deadline = Deadline.after(patience, self._clock)
        self._release()
        self._connection.wanted()
        with ExitStack() as steps:
            steps.callback(self._connection.close)
            steps.callback(self._holder.close)
            steps.callback(self._hold.close)
            steps.callback(self.outbox.close)
            steps.callback(self._rest, deadline)
            pending = self.delivery.drain(deadline, patient=False)
            if not pending:
                self.outbox.tidy()
            # What is not stored now fails.
            return pending - self.outbox.unstored()

    def _rest(self, deadline: Deadline) -> None:
        self._closing.set()
        self._opening.close()
        self.delivery.close()
        if not self.lane.close(min(_GRACE, deadline.remaining())):
            self._connection.cut()
            self.lane.close(_GRACE)

    def abandon(self) -> None:
        """Make everything that is under way end soon: the interpreter exits, and what is left stays in the outbox."""
        self._closing.set()
        self._connection.cut()
        self.delivery.abandon()

    def _session(self, ref: SessionRef) -> SessionRef:
        cache = self._connection.open().cache
        decided = cache.named(ref)
        if ref.key:
            # Before the session is there: reads go on without one that was deleted.
            self._decided[ref] = decided
        return cache.session(decided) if self._writes else decided

    def _await_sync(self, deadline: Deadline) -> None:
        """Wait for what was given before this call: well or not, it must be settled before a tool reads.

        A sync that was waited out is not waited for again, and none is while delivery fails.
        """
        self._connection.wanted()
        oldest = self.delivery.oldest_turn()
        hopeless = self.delivery.health.failing or (oldest is not None and oldest == self._waited_out)
        patience = Deadline.after(0.0, self._clock) if hopeless else deadline
        if oldest is None and not hopeless:
            # Only the session's opening stands before whatever an earlier process left.
            patience = Deadline.after(self._opening.patience(deadline.remaining()), self._clock)
        if self.delivery.wait_for_rest(patience):
            sync = self.delivery.last_sync
            if sync is not None:
                sync.wait(patience.remaining())
            if (sync is None or sync.done()) and not self.delivery.health.failing:
                return
        health = self.delivery.health
        if health.failing and health.error is not None and not health.error.retryable:
            raise health.error
        if oldest is None and not health.failing and self.not_open() not in (None, self.deleted()):
            raise self._opening_pending()
        pending = self._pending("the sync", self._sync_age())
        if not hopeless:
            self._meter.count("join_timeouts")
            _log.warning("the pending sync was not waited for any longer: %s", pending)
        self._waited_out = self.delivery.oldest_turn()
        raise pending

    def _sync_age(self) -> float:
        """Seconds for which the oldest write that is not delivered has been waiting."""
        oldest_at = self.outbox.counts().oldest_at
        stored = 0.0 if oldest_at is None else self._clock.now() - oldest_at
        return max(stored, self.delivery.oldest_wait() or 0.0)

    def _pending(self, what: str, age: float) -> SyncPending:
        health = self.delivery.health
        wait = _ASK_AGAIN
        if health.retry_at is not None:
            wait = max(1.0, health.retry_at - self._clock.monotonic())
        why = f" (last failure: {health.error})" if health.failing and health.error is not None else ""
        return SyncPending(
            f"{what} with {self.where} has been going for {age:.1f} s and is not done{why}; nothing is lost,"
            f" try again in {wait:.0f} s",
            age=age,
            retry_after=wait,
        )
