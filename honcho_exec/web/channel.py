"""Connections of the served Honcho, judged before their requests' bodies are read.

waitress reads a whole request, into a temporary file if it is large, before the application sees it. Here the head of
a request decides: without the key no body is read, and with it no more than the route takes and the server has room
for. A connection on which no request has shown the key yet is a stranger: it may stay for five seconds, and strangers
hold at most a share of the connections.
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

_STRANGER_SECONDS = 5.0
_ACCEPTED_AT_ONCE = 64


class _Budget:
    """How many bytes of bodies are held at a time, over all requests."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


class _Request(HTTPRequestParser):
    """A request that is refused, or answered without its body, as soon as its head is there."""

    body_rcv: Any
    content_length: int
    error: Any

    def __init__(self, adj: Any, *, channel: _Channel) -> None:
        super().__init__(adj)
        self._channel = channel
        self._server: Server = channel.server
        self._judged = False
        self._limit = 0
        self._taken = 0
        self._closed = False

    def received(self, data: bytes) -> int:
        """Take in some of the request; return how many bytes of `data` belonged to it."""
        consumed: int = super().received(data)
        if not self.headers_finished or self.empty or self.error is not None:
            return consumed
        if not self._judged:
            self._judged = True
            self._judge()
        elif self.chunked and not self._closed:
            self._reserve(self.body_bytes_received)
        return consumed

    def close(self) -> None:
        """Give back what the body took."""
        super().close()
        self._closed = True
        self._server.budget.give_back(self._taken)
        self._taken = 0

    def _judge(self) -> None:
        head = {f"HTTP_{name}": value for name, value in self.headers.items()}
        head |= {"REQUEST_METHOD": self.command, "PATH_INFO": self.path}
        guard = self._server.guard
        refusal, with_key = guard.refusal(head), guard.shows_key(head)
        if refusal is None:
            self._server.admitted(self._channel, with_key=with_key)
        if self.body_rcv is None:
            return
        if refusal is not None:
            self._refuse(refusal)
        elif with_key:
            self._limit = self._server.body_limit(self.path)
            self._reserve(self.content_length)
        else:
            # Answered, as nothing in the body can matter, and closed, as what comes next is the body.
            self.body_rcv, self.content_length, self.chunked = None, 0, False
            self.headers |= {"CONNECTION": "close", "CONTENT_LENGTH": "0"}
            self.completed, self.expect_continue = True, False

    def _reserve(self, size: int) -> None:
        """Make room for a body of that size, or refuse it."""
        if size > self._limit:
            detail = f"the body has more than {self._limit:,} bytes, which is the most that is taken here"
            self._refuse(Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
        elif self._server.budget.take(size - self._taken):
            self._taken = size
        else:
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at a time; try again"))

    def _refuse(self, refusal: Refusal) -> None:
        self.close()
        self.body_rcv, self.error, self.completed, self.expect_continue = None, refusal, True, False


class _Channel(HTTPChannel):
    """A connection."""

    def __init__(self, server: Server, connection: socket.socket, address: object, adj: Any, **options: Any) -> None:
        super().__init__(server, connection, address, adj, **options)
        self.parser_class = partial(_Request, channel=self)
        server.arrived(self)

    def handle_close(self) -> None:
        """Close it, and give back what an unfinished request took."""
        if self.request is not None:
            self.request.close()
        self.server.gone(self)
        super().handle_close()


class Server(TcpWSGIServer):
    """A waitress server that judges a request by its head.

    Args:
        guard: the application; it decides which requests are admitted.
        listening: a bound socket.
        body_limit: how many bytes a body may have, by the path of the request.
        most_bodies: how many bytes of bodies are held at a time.
        stranger_share: the share of the connections that strangers may hold.
        options: waitress's own.
    """

    channel_class = _Channel

    def __init__(
        self,
        guard: Guard,
        listening: socket.socket,
        *,
        body_limit: Callable[[str], int],
        most_bodies: int,
        stranger_share: float,
        **options: Any,
    ) -> None:
        self.guard = guard
        self.body_limit = body_limit
        self.budget = _Budget(most_bodies)
        # The oldest first.
        self._strangers: dict[_Channel, float] = {}
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(guard, _sock=listening, bind_socket=False, sockinfo=address, **options)
        self._most_strangers = max(1, int(self.adj.connection_limit * stranger_share))

    def arrived(self, channel: _Channel) -> None:
        """Note a new connection; the oldest stranger makes room for it if there are too many."""
        self._strangers[channel] = time.monotonic()
        if len(self._strangers) > self._most_strangers:
            self._drop(next(iter(self._strangers)))

    def handle_accept(self) -> None:
        """Take what waits in the backlog, so that a flood of strangers does not hold up the others in it."""
        for _ in range(_ACCEPTED_AT_ONCE):
            known = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == known or len(self._map) >= self.adj.connection_limit:
                return

    def maintenance(self, now: float) -> None:
        """Drop idle connections, and strangers whose time is over."""
        super().maintenance(now)
        self.drop_strangers(time.monotonic() - _STRANGER_SECONDS)

    def drop_strangers(self, since: float) -> None:
        """Drop the strangers that have been here since then, unless an answer to them is being made."""
        for channel in [one for one, came in self._strangers.items() if came <= since and not one.requests]:
            self._drop(channel)

    def admitted(self, channel: _Channel, *, with_key: bool) -> None:
        """Note that a request was admitted: with the key it makes its connection no stranger any more."""
        if self._strangers.pop(channel, None) is not None and not with_key:
            self._strangers[channel] = time.monotonic()

    def gone(self, channel: _Channel) -> None:
        """Forget a connection."""
        self._strangers.pop(channel, None)

    def _drop(self, channel: _Channel) -> None:
        # waitress closes it when it comes to it; closing it here would free its descriptor while events are handed out.
        channel.will_close = True
        self.gone(channel)
