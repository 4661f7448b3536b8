"""Listening: the served Honcho behind its guard, until it is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from waitress.server import create_server

from honcho_exec.errors import HonchoExecError
from honcho_exec.web.guard import WSGIApplication

__all__ = ["CannotListenError", "listen"]

_THREADS = 8
# A batch of a hundred messages of 25,000 characters, each of four bytes and escaped, is what Honcho takes at most.
_MOST_BODY = 64 * 1024 * 1024


class CannotListenError(HonchoExecError):
    """The address cannot be listened on."""

    cause = "address"


def listen(app: WSGIApplication, host: str, port: int, *, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then let requests that are worked on finish, at most five seconds.

    Args:
        app: what is served; called by several threads.
        host: the address to listen on; `localhost` is 127.0.0.1.
        port: 0 for any that is free.
        started: hears the URL as soon as connections are taken.

    Raises:
        CannotListenError: the address is in use, or not this machine's.
    """
    with _bound(host, port) as listening:
        server = create_server(
            app, sockets=[listening], threads=_THREADS, ident="honcho-exec", max_request_body_size=_MOST_BODY
        )
        before = signal.signal(signal.SIGTERM, _end)
        try:
            address, port = listening.getsockname()[:2]
            started(f"http://{f'[{address}]' if ':' in address else address}:{port}")
            server.run()
        finally:
            signal.signal(signal.SIGTERM, before)
            server.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket on the address; waitress would leave threads behind where there is none to be had."""
    address = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    try:
        family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CannotListenError(f"cannot listen on {host}:{port}: {why}; --port and --host choose another") from error
    return listening


def _end(_: int, __: FrameType | None) -> NoReturn:
    # What waitress takes as the sign to end, like Ctrl-C.
    raise SystemExit
