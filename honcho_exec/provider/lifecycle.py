"""The life of a provider: begin, try again, switch, close, and stay away from the parent's state after a fork."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.clock import Clock
from honcho_exec.conversation.conversation import Conversation, open_outbox
from honcho_exec.conversation.host_memory import Mirror
from honcho_exec.errors import Closed, ConfigurationError, Disabled, HonchoExecError, StateError
from honcho_exec.forks import ADVICE, on_fork_in_child
from honcho_exec.model import SessionRef
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.provider.assembly import Components, assemble
from honcho_exec.provider.checks import collect_status
from honcho_exec.provider.sessions import HostSessions
from honcho_exec.provider.status import Status
from honcho_exec.recall.dialectic import Rewriter
from honcho_exec.recall.recall import Recall
from honcho_exec.runtime.log import call_guarded
from honcho_exec.runtime.metrics import Meter
from honcho_exec.runtime.offload import begin_use, end_use
from honcho_exec.runtime.timer import weak_callback
from honcho_exec.settings import LoadedSettings, Settings, load, state_home, stated_home
from honcho_exec.settings.identity import HostContext

__all__ = ["HealthListener", "Lifecycle"]

HealthListener = Callable[[HonchoExecError | None], None]

_log = logging.getLogger(__name__)

# State that could not be used is tried again after this time, when it is needed.
_RETRY_SECONDS = 30.0

_lifecycles: weakref.WeakSet[Lifecycle] = weakref.WeakSet()
_inherited: list[Components] = []


class Lifecycle:
    """Holds the components of a provider from `begin` to `close`. Not for callers' threads: it takes locks.

    Attributes:
        components: None if memory is not in use.
        error: why it is not; None before `begin`.
        loaded: the settings, once they were read.
    """

    def __init__(
        self,
        sessions: HostSessions,
        environ: Mapping[str, str],
        *,
        home: Path | None,
        profile: str | None,
        clock: Clock,
        on_health_change: HealthListener | None,
        rewrite: Rewriter | None,
    ) -> None:
        self.sessions = sessions
        self.meter = Meter()
        self.components: Components | None = None
        self.loaded: LoadedSettings | None = None
        self._environ = environ
        self._home = home
        self._hermes_home: str | None = None
        self._profile = profile
        self._clock = clock
        self._on_health_change = on_health_change
        self._rewrite = rewrite
        self._lock = threading.Lock()
        self.error: HonchoExecError | None = None
        self._tried_at = 0.0
        self._is_inherited = False
        _lifecycles.add(self)

    def __str__(self) -> str:
        if (conversation := self.conversation) is None:
            return str(self.error or "not initialized")
        counts, breaker = conversation.outbox.inspection.counts(), conversation.breaker
        failing = " | failing" if conversation.delivery.health.failing else ""
        if breaker.state != "closed":
            failing = f" | breaker {breaker.state}" + (f" {breaker.remaining():.0f} s" if breaker.remaining() else "")
        return f"{counts.pending} pending, {counts.in_flight} in flight, {counts.parked} parked{failing}"

    @property
    def settings(self) -> Settings:
        """The settings.

        Raises:
            ConfigurationError: they cannot be used.
        """
        if self.loaded is None:
            self.loaded = load(self._environ, hermes_home=self._hermes_home, profile=self._profile)
        return self.loaded.settings

    @property
    def home(self) -> Path:
        """The state folder.

        Raises:
            ConfigurationError: the variable that names it cannot be used.
        """
        return self._home or state_home(self._environ, self._hermes_home)

    @property
    def conversation(self) -> Conversation | None:
        """The conversation; None if memory is not in use."""
        components = self.components
        return None if components is None else components.conversation

    @property
    def trouble(self) -> HonchoExecError | None:
        """Why memory does not work at the moment."""
        if (conversation := self.conversation) is None:
            return self.error
        health = conversation.delivery.health
        return health.error if health.failing else None

    def begin(self, context: HostContext, hermes_home: str | None, profile: str) -> None:
        """Read the settings and begin the conversation, unless it is in progress."""
        with self._lock:
            if self.components is not None or self._is_inherited:
                return
            self._hermes_home = hermes_home
            self._profile = profile or self._profile
            self.sessions.begin(context)
            self._try_to_begin()

    def present(self) -> Components | None:
        """Return the components, trying again now and then if the state could not be used."""
        if self.components is None and self._may_retry():
            with self._lock:
                if self.components is None and self._may_retry():
                    self._try_to_begin()
        return self.components

    def begun(self) -> Components:
        """Return the components as `present` does, or raise why there are none."""
        components = self.present()
        if components is None:
            raise self._why_not()
        return components

    def ref(self, session_id: str) -> SessionRef:
        """Return the session of that run of the host; the present one if there is no such run."""
        return self.sessions.ref(session_id, self.begun().conversation.ref)

    def mirror(self) -> Mirror:
        """Return the mirror of the host's memory; raise `Disabled` if nothing is written."""
        if (mirror := self.begun().mirror) is None:
            raise Disabled("this run only reads")
        return mirror

    def recalling(self, session_id: str = "") -> tuple[Recall, SessionRef] | None:
        """Return recall and its session; None if nothing is recalled, or not for that run of the host."""
        components = self.present()
        if components is None or components.recall is None:
            return None
        ref = components.conversation.ref
        return (components.recall, ref) if self.sessions.ref(session_id, ref) == ref else None

    def offers_tools(self) -> bool:
        """Return whether the tools are shown; they are if the settings cannot be read, and answer what is wrong."""
        try:
            return self.settings.enabled and self.settings.recall_mode != "context"
        except HonchoExecError:
            return True

    def switch(
        self, session_id: str, *, reset: bool, rewound: bool, title: str | None, title_source: str | None
    ) -> None:
        """See `HonchoProvider.on_session_switch`."""
        components = self.present()
        with self._lock:
            if components is None or components is not self.components:
                return
            conversation, recall = components.conversation, components.recall
            self.sessions.switch(session_id, reset=reset, title=title, title_source=title_source)
            ref = self.sessions.current(self.settings)
            moved = ref != conversation.ref
            if moved:
                conversation.switch(ref)
        if recall is not None and (moved or reset or rewound):
            recall.switch()

    def status(self) -> Status:
        """See `HonchoProvider.status`."""
        components, error = self.present(), self.error
        try:
            home = self.home
        except ConfigurationError as unusable:
            home, error = stated_home(self._environ, self._hermes_home), error or unusable
        conversation, usage = (components.conversation, components.usage) if components is not None else (None, None)
        return collect_status(conversation, self.loaded, home, error, self._clock, usage=usage)

    @contextmanager
    def outbox(self) -> Iterator[Outbox]:
        """See `HonchoProvider.outbox`."""
        if self._is_inherited:
            raise self._why_not()
        settings = self.settings
        holder = LeaseHolder(self.home / "holders")
        outbox = open_outbox(settings, self.sessions.current(settings), self.home, holder, self._clock)
        try:
            yield outbox
        finally:
            outbox.close()
            holder.close()

    def close(self, timeout: float | None) -> int:
        """See `HonchoProvider.shutdown`."""
        with self._lock:
            components, self.components = self.components, None
            if components is None:
                return 0
            self.error = Closed("the provider is closed")
        try:
            left = components.close(timeout)
        finally:
            end_use(self)
        if left:
            _log.warning("%d writes are kept in the outbox and will be delivered later", left)
        return left

    def leave_parent(self) -> None:
        """Give up, in a forked child, the threads, connections and Futures of the parent."""
        self._lock, self.meter = threading.Lock(), Meter()
        self.error = Closed(ADVICE)
        self._is_inherited = True
        if self.components is not None:
            # Kept alive, so that nothing is closed: the files and sockets are the parent's too.
            _inherited.append(self.components)
            self.components = None

    def _may_retry(self) -> bool:
        # A full disk or a locked file may be over: a host runs for weeks.
        due = self._clock.monotonic() >= self._tried_at + _RETRY_SECONDS
        return isinstance(self.error, StateError) and due

    def _try_to_begin(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            self._begin()
            self.error = None
        except HonchoExecError as error:
            self.error = error
            level = logging.INFO if isinstance(error, Disabled) else logging.ERROR
            _log.log(level, "memory is not in use: %s", error)

    def _begin(self) -> None:
        loaded = self.loaded = load(self._environ, hermes_home=self._hermes_home, profile=self._profile)
        for warning in loaded.warnings:
            _log.warning("%s", warning)
        if not loaded.settings.enabled:
            raise Disabled("Honcho memory is switched off (HONCHO_ENABLED, or `enabled` in honcho.json)")
        self.components = assemble(
            loaded,
            self.sessions.current(loaded.settings),
            self.home,
            self._clock,
            self.meter,
            writes=self.sessions.writes,
            shared=self.sessions.is_shared(loaded.settings),
            host_folder=self._hermes_home or self._environ.get("HERMES_HOME", "").strip(),
            rewrite=self._rewrite,
            on_health_change=self._tell_health,
        )
        begin_use(self, weak_callback(self._abandon))

    def _abandon(self) -> None:
        if (conversation := self.conversation) is not None:
            conversation.abandon()

    def _tell_health(self, error: HonchoExecError | None) -> None:
        if (listener := self._on_health_change) is not None:
            call_guarded(_log, "the on_health_change callback", lambda: listener(error), None)

    def _why_not(self) -> HonchoExecError:
        return self.error or Closed("the provider is not initialized; call initialize() or use `with`")


@on_fork_in_child
def _after_fork() -> None:
    for lifecycle in list(_lifecycles):
        lifecycle.leave_parent()
