"""A waitress server that checks a request's head before it reads the body.

waitress reads a whole request, into a temporary file if it is large, before the application sees it. Here the head of
a request decides: without the key no body is read, and with the key no more than the limits of the route and of the
server. A connection is unauthenticated until a request on it has the key: it is closed after five seconds, and
unauthenticated connections are at most a share of all.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer

from honcho_exec.web.guard import Guard, Refusal

__all__ = ["Server"]

_UNAUTHENTICATED_SECONDS = 5.0
_MAX_ACCEPTED_AT_ONCE = 64


class _Budget:
    """The bytes that the bodies of all current requests may take."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def acquire(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def release(self, size: int) -> None:
        with self._lock:
            self._left += size


class _Request(HTTPRequestParser):
    """A request that may be refused or answered once its head is read."""

    body_rcv: Any
    content_length: int
    error: Any

    def __init__(self, adj: Any, *, channel: _Channel) -> None:
        super().__init__(adj)
        self._channel = channel
        self._server: Server = channel.server
        self._checked = False
        self._limit = 0
        self._reserved = 0
        self._closed = False

    def received(self, data: bytes) -> int:
        """Parse data of the request; return how many bytes belonged to it."""
        consumed: int = super().received(data)
        if not self.headers_finished or self.empty or self.error is not None:
            return consumed
        if not self._checked:
            self._checked = True
            self._check_head()
        elif self.chunked and not self._closed:
            self._reserve(self.body_bytes_received)
        return consumed

    def close(self) -> None:
        """Release the memory of the body."""
        super().close()
        self._closed = True
        self._server.budget.release(self._reserved)
        self._reserved = 0

    def _check_head(self) -> None:
        head = {f"HTTP_{name}": value for name, value in self.headers.items()}
        head |= {"REQUEST_METHOD": self.command, "PATH_INFO": self.path}
        guard = self._server.guard
        refusal, has_key = guard.refusal(head), guard.has_key(head)
        if refusal is None:
            self._server.on_admitted(self._channel, has_key=has_key)
        if self.body_rcv is None:
            return
        if refusal is not None:
            self._refuse(refusal)
        elif has_key:
            self._limit = self._server.body_limit(self.path)
            self._reserve(self.content_length)
        else:
            # A public request: answered without its unread body, and the connection closed, as the body comes next.
            self.body_rcv, self.content_length, self.chunked = None, 0, False
            self.headers |= {"CONNECTION": "close", "CONTENT_LENGTH": "0"}
            self.completed, self.expect_continue = True, False

    def _reserve(self, size: int) -> None:
        """Reserve memory for a body of that size, or refuse the request."""
        if size > self._limit:
            detail = f"the body has more than {self._limit:,} bytes, which is the most that is taken here"
            self._refuse(Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
        elif self._server.budget.acquire(size - self._reserved):
            self._reserved = size
        else:
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at a time; try again"))

    def _refuse(self, refusal: Refusal) -> None:
        self.close()
        self.body_rcv, self.error, self.completed, self.expect_continue = None, refusal, True, False


class _Channel(HTTPChannel):
    """A connection that the server counts until it has authenticated."""

    def __init__(self, server: Server, connection: socket.socket, address: object, adj: Any, **options: Any) -> None:
        super().__init__(server, connection, address, adj, **options)
        self.parser_class = partial(_Request, channel=self)
        server.on_connect(self)

    def handle_close(self) -> None:
        """Close the connection, and release the memory of an unfinished request."""
        if self.request is not None:
            self.request.close()
        self.server.on_close(self)
        super().handle_close()


class Server(TcpWSGIServer):
    """A waitress server that checks a request by its head.

    Args:
        guard: the application; it decides which requests are admitted.
        listening: a bound socket.
        body_limit: returns the largest body of a request, in bytes, by its path.
        max_body_bytes: the bytes that the bodies of all current requests may take.
        unauthenticated_share: the largest share of unauthenticated connections.
        options: those of waitress.
    """

    channel_class = _Channel

    def __init__(
        self,
        guard: Guard,
        listening: socket.socket,
        *,
        body_limit: Callable[[str], int],
        max_body_bytes: int,
        unauthenticated_share: float,
        **options: Any,
    ) -> None:
        self.guard = guard
        self.body_limit = body_limit
        self.budget = _Budget(max_body_bytes)
        # When each connected, or last had a public request answered; the oldest first.
        self._unauthenticated: dict[_Channel, float] = {}
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(guard, _sock=listening, bind_socket=False, sockinfo=address, **options)
        self._max_unauthenticated = max(1, int(self.adj.connection_limit * unauthenticated_share))

    def on_connect(self, channel: _Channel) -> None:
        """Record a connection; drop the oldest unauthenticated of too many."""
        self._unauthenticated[channel] = time.monotonic()
        if len(self._unauthenticated) > self._max_unauthenticated:
            self._drop(next(iter(self._unauthenticated)))

    def handle_accept(self) -> None:
        """Accept the whole backlog, so that a flood does not delay the others."""
        for _ in range(_MAX_ACCEPTED_AT_ONCE):
            known = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == known or len(self._map) >= self.adj.connection_limit:
                return

    def maintenance(self, now: float) -> None:
        """Drop idle connections, and those that did not authenticate in time."""
        super().maintenance(now)
        self.drop_unauthenticated(time.monotonic() - _UNAUTHENTICATED_SECONDS)

    def drop_unauthenticated(self, since: float) -> None:
        """Drop idle unauthenticated connections from before `since`."""
        for channel, connected in list(self._unauthenticated.items()):
            if connected <= since and not channel.requests:
                self._drop(channel)

    def on_admitted(self, channel: _Channel, *, has_key: bool) -> None:
        """Record an admitted request; the key authenticates its connection."""
        if self._unauthenticated.pop(channel, None) is not None and not has_key:
            self._unauthenticated[channel] = time.monotonic()

    def on_close(self, channel: _Channel) -> None:
        """Forget a closed connection."""
        self._unauthenticated.pop(channel, None)

    def _drop(self, channel: _Channel) -> None:
        # waitress closes it later: closing it here would free its descriptor while events are dispatched.
        channel.will_close = True
        self.on_close(channel)
