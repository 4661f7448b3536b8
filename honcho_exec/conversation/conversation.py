"""One conversation: its lane, its outbox, and the requests of its tools."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock, Deadline
from honcho_exec.conversation.hold import WriteBuffer
from honcho_exec.conversation.opening import SessionOpener
from honcho_exec.conversation.pending_sync import PendingSync
from honcho_exec.conversation.reader import Reader
from honcho_exec.delivery.futures import TurnFuture
from honcho_exec.delivery.pump import Pump
from honcho_exec.errors import Disabled, HonchoExecError, RequestError, SessionDeleted, StateError, SyncPending
from honcho_exec.model import Message, Receipt, SessionRef, Write
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.lease import LeaseHolder
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

# What a job under way gets when the provider closes, before and after its requests are cut.
_GRACE_SECONDS = 0.5


def open_outbox(settings: Settings, ref: SessionRef, home: Path, holder: LeaseHolder, clock: Clock) -> Outbox:
    """Open the outbox of a state folder, for the destination of the settings.

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
    """Composes what a conversation needs: reads run on the caller's thread, writes go through the outbox.

    No request is made and the SDK is not imported before the lane's first job; `begin` queues it.

    Args:
        home: the state folder.
        grant: the OAuth grant of the key, if it has one.
        writes: False refuses every write.
        on_health_change: called on a thread of its own: with the error when delivery begins to fail, with None when
            it works again.

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
        on_health_change: Callable[[HonchoExecError | None], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._writes = writes
        self._clock = clock
        self._closing = threading.Event()
        self.ref = ref
        self.breaker = Breaker(
            self.where, threshold=settings.breaker_threshold, cooldown=settings.breaker_cooldown, clock=clock
        )
        retry = RetryPolicy(
            attempts=settings.retry_attempts,
            max_wait=settings.retry_max_wait,
            deadline=settings.retry_deadline,
            closing=self._closing,
            breaker=self.breaker,
            clock=clock,
            on_retry=partial(meter.count, "retried"),
        )
        self._holder = LeaseHolder(home / "holders")
        self.outbox = open_outbox(settings, ref, home, self._holder, clock)
        self.lane = Lane(abandon=self.abandon)
        self._connection = Connection(
            self.lane,
            settings,
            home,
            ref.workspace,
            clock=clock,
            breaker=self.breaker,
            meter=meter,
            grant=grant,
            speakers=self.outbox.inspection.users,
        )
        self._opener = SessionOpener(
            self._connection, self.lane, (self.outbox.path, self.outbox.destination), self.breaker, clock, writes=writes
        )
        self.delivery = Pump(
            lane=self.lane,
            outbox=self.outbox,
            connection=self._connection,
            retry=retry,
            breaker=self.breaker,
            meter=meter,
            clock=clock,
            slow_after=settings.sync_join_timeout / 2,
            on_health_change=on_health_change,
            pace=embedded_pace() if settings.backend == "embedded" else None,
        )
        most_turns = settings.write_frequency if isinstance(settings.write_frequency, int) else None
        self._buffer = WriteBuffer(self.delivery.turns, home / "holders", most_turns=most_turns)
        self._pending = PendingSync(
            self.delivery,
            self._opener,
            self.outbox,
            timeout=settings.sync_join_timeout,
            where=self.where,
            clock=clock,
            meter=meter,
        )
        self.reader = Reader(self._connection, self.lane, retry, settings, clock)

    @property
    def where(self) -> str:
        """The Honcho in use, for messages."""
        return "the embedded Honcho" if self._settings.backend == "embedded" else self._settings.shown_url

    def decided(self, ref: SessionRef) -> SessionRef:
        """Return `ref` with the session that its key goes to.

        Raises:
            SyncPending: the lane has not decided yet.
        """
        decided = self._opener.named(ref)
        if decided is None:
            raise self._pending.error("deciding on the session", self._opener.age)
        return decided

    @property
    def shown(self) -> SessionRef:
        """The present session as a person sees it: the decided one, if there is one."""
        return self._opener.named(self.ref) or self.ref

    def begin(self) -> None:
        """Open the session, and deliver the rows of earlier processes after that.

        The session is opened later if nothing is injected and `initOnSessionStart` is false, and never if nothing is
        written.
        """
        if self._writes and (self._settings.recall_mode != "tools" or self._settings.init_on_session_start):
            self._opener.begin(self.ref)
        self.delivery.wake()

    def switch(self, ref: SessionRef) -> None:
        """Go on in another session of the workspace; earlier turns stay in theirs."""
        self._release()
        self.ref = ref
        if self._opener.begun:
            self._opener.begin(ref)

    def sync(self, writes: Sequence[Write], ref: SessionRef | None = None) -> TurnFuture:
        """Store messages durably; tool calls wait for the Future."""
        self._connection.busy()
        if self._buffer and any(isinstance(write, Message) for write in writes):
            # They may follow turns of the same session that are held back.
            self._release()
        return self.delivery.turns.admit(ref or self.ref, writes, awaited=True)

    def turn(self, writes: Sequence[Write], ref: SessionRef) -> TurnFuture:
        """Store a turn durably, and send it when `writeFrequency` says so; no lock is taken on the caller's thread.

        Only turns of the present session are held back. In the mode `turn` this waits for the delivery, at most the
        sync join timeout, unless it is known to take longer.
        """
        self._refuse_unless_writing()
        if self._settings.write_frequency == "async":
            self._connection.busy()
            return self.delivery.turns.admit(ref, writes, awaited=True)
        return offload(partial(self._turn, writes, ref))

    def _turn(self, writes: Sequence[Write], ref: SessionRef) -> TurnFuture:
        frequency = self._settings.write_frequency
        if frequency == "turn" or ref != self.ref or not writes:
            future = self.sync(writes, ref)
            if frequency == "turn":
                self._connection.wanted()
                self._pending.wait_for_turn(future)
            return future
        self._connection.busy()
        future = self._buffer.add(ref, writes)
        if self._buffer.is_full:
            self._release()
        return future

    def _release(self) -> None:
        """Send the turns that are held back; tool calls wait for them from now on."""
        if (last := self._buffer.release()) is not None:
            self.delivery.turns.last_sync = last

    def write(self, write: Write) -> TurnFuture:
        """Store a write of a tool durably; return the Future of its delivery.

        Raises:
            Disabled: this run only reads.
        """
        self._refuse_unless_writing()
        return self.delivery.turns.admit(self.ref, [write])

    def _refuse_unless_writing(self) -> None:
        if not self._writes:
            raise Disabled("this run only reads: cron, flush, subagent and read runs write nothing")

    def wait_for_write(self, future: TurnFuture) -> Receipt:
        """Wait for a write, at most the sync join timeout; raise `Queued` if it is kept and not confirmed."""
        self._connection.wanted()
        return self._pending.wait_for_write(future)

    def ready(self) -> SessionRef:
        """Wait for the pending sync and the session; return the decided session, or raise the tool's answer."""
        self.breaker.raise_if_open()
        ref, deadline = self.ref, self._join_deadline()
        self._connection.wanted()
        self._pending.wait(deadline)
        self.connect(deadline)
        self.reader.begin_call()
        return self.decided(ref)

    def connect(self, deadline: Deadline | None = None) -> HonchoApi:
        """Wait until the session is open and return the API; open it again if that failed.

        Raises:
            SyncPending: it is not open at the deadline, by default after the sync join timeout.
            RequestError, StateError: it cannot be opened.
        """
        self._pending.wait_for_session(self.ref, deadline or self._join_deadline())
        return self._connection.api

    def deleted(self) -> SessionDeleted | None:
        """Return why the present session does not exist, if it was deleted and its name is not free yet."""
        error = self._opener.failure(0.0)
        return error if isinstance(error, SessionDeleted) else self.delivery.deleted.error(self.shown.session)

    def not_open(self, patience: float) -> HonchoExecError | None:
        """Return why the session is not open after `patience` seconds; None if it is, or is not wanted yet."""
        match self._opener.failure(patience):
            case TimeoutError():
                return self._pending.error("opening the session", self._opener.age)
            case HonchoExecError() as error:
                return error
        return None

    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds until nothing is left to send; return how many rows are."""
        self._release()
        self._connection.wanted()
        return self.delivery.drain(Deadline.after(timeout, self._clock), patient=True)

    def join(self) -> bool:
        """Send the turns held back and wait for the pending sync, at most its timeout; return whether it is over."""
        self._release()
        self._connection.wanted()
        try:
            self._pending.wait(self._join_deadline())
        except (SyncPending, RequestError, StateError):
            return False
        return True

    def close(self, timeout: float | None = None) -> int:
        """Drain at most `timeout` seconds, cut the requests that hang, and return how many rows are left for later.

        The shutdown timeout is the default. Everything is closed even if one step fails; the first failure is raised
        then.
        """
        patience = self._settings.shutdown_timeout if timeout is None else timeout
        deadline = Deadline.after(patience, self._clock)
        self._release()
        self._connection.wanted()
        with ExitStack() as steps:
            steps.callback(self._connection.close)
            steps.callback(self._holder.close)
            steps.callback(self._buffer.close)
            steps.callback(self.outbox.close)
            steps.callback(self._stop, deadline)
            pending = self.delivery.drain(deadline, patient=False)
            if not pending:
                self.outbox.file.vacuum()
            # Turns that are not stored now fail.
            return pending - self.outbox.inspection.unstored()

    def _stop(self, deadline: Deadline) -> None:
        self._closing.set()
        self._opener.close()
        self.delivery.close()
        if not self.lane.close(min(_GRACE_SECONDS, deadline.remaining())):
            self._connection.cut()
            self.lane.close(_GRACE_SECONDS)

    def abandon(self) -> None:
        """End what is under way: the interpreter exits, and what is left stays in the outbox."""
        self._closing.set()
        self._connection.cut()
        self.delivery.turns.abandon()

    def _join_deadline(self) -> Deadline:
        return Deadline.after(self._settings.sync_join_timeout, self._clock)
