"""The provider's connection: opened by the lane's first job, and aborted when the provider closes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from honcho_exec.client.session_cache import SessionCache
from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Closed, ConfigurationError
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.settings import Settings

if TYPE_CHECKING:
    # Both take long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi
    from honcho_exec.client.backend import Backend

__all__ = ["Connection", "Link"]

# A burst of turns is over when none has come for this long; it is waited for at most that long.
_QUIET_SECONDS = 0.05
_MAX_BURST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Link:
    """The parts of an open connection. The cache belongs to the lane."""

    backend: Backend
    api: HonchoApi
    cache: SessionCache


class Connection:
    """Opens the backend once, on the lane; opening makes no request.

    Args:
        home: the folder of the embedded backend's file.
        grant: the file of the OAuth grant that the key is from, if there is one.
        speakers: returns the users whose rows wait for a session.
    """

    def __init__(
        self,
        lane: Lane,
        settings: Settings,
        home: Path,
        workspace: str,
        *,
        clock: Clock,
        breaker: Breaker,
        meter: Meter,
        grant: GrantFile | None = None,
        speakers: Callable[[str], Collection[str]] = lambda _: (),
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._home = home
        self._workspace = workspace
        self._clock = clock
        self._breaker = breaker
        self._meter = meter
        self._grant = grant
        self._speakers = speakers
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._closed = False
        self._wanted = threading.Event()
        self._busy_at = clock.monotonic()

    def busy(self) -> None:
        """Record that a caller stores turns: importing the SDK now would slow it down."""
        self._busy_at = self._clock.monotonic()

    def wanted(self) -> None:
        """Record that a caller waits for the connection."""
        self._wanted.set()

    @property
    def is_open(self) -> bool:
        """Whether the lane has opened it."""
        return self._link is not None

    @property
    def api(self) -> HonchoApi:
        """The API; raises `Closed` before the lane has opened it."""
        if self._link is None:
            raise Closed("the connection is not open")
        return self._link.api

    def open(self) -> Link:
        """Return the open connection, opening it the first time; on the lane only.

        Raises:
            LaneError: the caller is not on the lane.
            ConfigurationError: the SDK cannot be imported.
            StateError: the embedded backend's file cannot be used.
            Closed: the connection was closed meanwhile.
        """
        self._lane.check()
        if self._link is not None:
            return self._link
        self._let_burst_pass()
        try:
            from honcho_exec.client.api import HonchoApi  # noqa: PLC0415 - see TYPE_CHECKING
            from honcho_exec.client.backend import open_backend  # noqa: PLC0415 - see TYPE_CHECKING
        except ImportError as error:
            raise ConfigurationError(
                f"the Honcho SDK cannot be imported: {error}; pip install 'honcho-ai>=2.2,<3'"
            ) from error
        backend = open_backend(self._settings, self._home, self._clock, self._grant)
        api = HonchoApi(
            backend,
            self._workspace,
            timeout=self._settings.timeout,
            clock=self._clock,
            breaker=self._breaker,
            meter=self._meter,
        )
        link = Link(backend, api, self._cache(api))
        with self._lock:
            if not self._closed:
                self._link = link
                return link
        backend.close()
        raise Closed("the provider is closed")

    def cut(self) -> None:
        """Open nothing more, and abort the running requests."""
        with self._lock:
            self._closed = True
        self._wanted.set()
        if self._link is not None:
            self._link.backend.abort()

    def close(self) -> None:
        """Abort, and close connections and files; for when the lane is idle."""
        self.cut()
        if self._link is not None:
            self._link.backend.close()

    def _cache(self, api: HonchoApi) -> SessionCache:
        return SessionCache(
            self._lane,
            api,
            self._settings,
            home=self._home,
            destination=self._settings.destination(self._workspace),
            clock=self._clock,
            closing=lambda: self._closed,
            speakers=self._speakers,
        )

    def _let_burst_pass(self) -> None:
        """Wait for a quiet moment before the SDK is imported, unless a caller waits for the connection.

        Importing keeps the interpreter busy for some 300 ms, in which a caller that stores one turn after another
        would wait milliseconds for each.
        """
        if "honcho" in sys.modules:
            return
        patience = Deadline.after(_MAX_BURST_SECONDS, self._clock)
        while (busy := self._busy_at + _QUIET_SECONDS - self._clock.monotonic()) > 0 and not patience.passed:
            if self._wanted.wait(busy):
                return
