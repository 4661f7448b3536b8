"""Listening: the served Honcho behind its guard, until it is told to end."""

from __future__ import annotations

import ipaddress
import logging
import resource
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from honcho_exec.errors import HonchoExecError
from honcho_exec.web.channel import Server
from honcho_exec.web.guard import Guard

__all__ = ["STRANGER_SHARE", "CannotListenError", "listen", "make_server"]

_log = logging.getLogger(__name__)

_THREADS = 8
_MOST_CONNECTIONS = 1_000
# Ordinary clients let go of what they do not use after four or five seconds, so none meets a connection just closed.
_IDLE = 20
_LOOK_FOR_IDLE = 1
_MOST_HEAD = 32 * 1024
_MOST_BODIES = 64 * 1024 * 1024
STRANGER_SHARE = 0.25
"""The share of the connections that clients may hold which have shown no key."""


class CannotListenError(HonchoExecError):
    """The address cannot be listened on."""

    cause = "address"


def listen(
    guard: Guard,
    host: str,
    port: int,
    *,
    body_limit: Callable[[str], int],
    stranger_share: float,
    started: Callable[[str, bool], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then let requests that are worked on finish, at most five seconds.

    Args:
        guard: the application that is served; called by several threads.
        host: the address to listen on; `localhost` is 127.0.0.1.
        port: 0 for any that is free.
        body_limit: how many bytes the body of a request may have, by its path.
        stranger_share: the share of the connections that clients may hold which have shown no key.
        started: hears, as soon as connections are taken, the URL on this machine, and whether every address of it is
            listened on.

    Raises:
        CannotListenError: the address is in use, or not this machine's.
    """
    with _bound(host, port) as listening:
        server = make_server(guard, listening, body_limit=body_limit, stranger_share=stranger_share)
        before = signal.signal(signal.SIGTERM, _end)
        try:
            address, port = listening.getsockname()[:2]
            everywhere = ipaddress.ip_address(address.partition("%")[0]).is_unspecified
            if everywhere:
                address = "::1" if ":" in address else "127.0.0.1"
            started(f"http://{f'[{address}]' if ':' in address else address}:{port}", everywhere)
            server.run()
        finally:
            signal.signal(signal.SIGTERM, before)
            server.close()


def make_server(
    guard: Guard,
    listening: socket.socket,
    *,
    body_limit: Callable[[str], int],
    stranger_share: float = STRANGER_SHARE,
) -> Server:
    """A server with enough connections for idle clients, which it drops after 20 s."""
    _log_as_ours()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = _MOST_CONNECTIONS if descriptors == resource.RLIM_INFINITY else descriptors // 2
    return Server(
        guard,
        listening,
        body_limit=body_limit,
        most_bodies=_MOST_BODIES,
        stranger_share=stranger_share,
        threads=_THREADS,
        ident="honcho-exec",
        max_request_header_size=_MOST_HEAD,
        max_request_body_size=_MOST_BODIES,
        # A request may take files besides its connection.
        connection_limit=min(_MOST_CONNECTIONS, half),
        channel_timeout=_IDLE,
        cleanup_interval=_LOOK_FOR_IDLE,
        # select() ends the server at the 1,024th descriptor.
        asyncore_use_poll=True,
    )


def _log_as_ours() -> None:
    """Let what waitress says be heard below `honcho_exec` like all else, and not on stderr unasked."""
    theirs = logging.getLogger("waitress")
    theirs.propagate = False
    theirs.handlers = [_Forward()]


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _log.isEnabledFor(record.levelno):
            _log.handle(record)


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
