"""Listen on a socket and serve the guarded Honcho until a signal."""

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

__all__ = ["UNAUTHENTICATED_SHARE", "CannotListenError", "listen", "make_server"]

_log = logging.getLogger(__name__)

_THREADS = 8
_MAX_CONNECTIONS = 1_000
# Common clients close idle connections after four or five seconds, so none reuses one that the server just closed.
_IDLE_SECONDS = 20
_IDLE_CHECK_SECONDS = 1
_MAX_HEAD_BYTES = 32 * 1024
_MAX_BODY_BYTES = 64 * 1024 * 1024
UNAUTHENTICATED_SHARE = 0.25
"""The largest share of connections without the key."""


class CannotListenError(HonchoExecError):
    """The address cannot be listened on."""

    cause = "address"


def listen(
    guard: Guard,
    host: str,
    port: int,
    *,
    body_limit: Callable[[str], int],
    unauthenticated_share: float,
    started: Callable[[str, bool], None],
) -> None:
    """Serve until SIGINT or SIGTERM; requests get five seconds to finish.

    Args:
        guard: the application; called from several threads.
        host: the address to listen on; `localhost` is 127.0.0.1.
        port: 0 for any free port.
        body_limit: returns the largest body of a request, in bytes, by its path.
        unauthenticated_share: the largest share of connections without the key.
        started: called once connections are accepted, with the URL on this machine and whether the server listens on
            all addresses.

    Raises:
        CannotListenError: the address is in use, or not of this machine.
    """
    with _bind(host, port) as listening:
        server = make_server(guard, listening, body_limit=body_limit, unauthenticated_share=unauthenticated_share)
        before = signal.signal(signal.SIGTERM, _stop)
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
    unauthenticated_share: float = UNAUTHENTICATED_SHARE,
) -> Server:
    """Make a server, which closes idle connections after 20 s."""
    _redirect_logging()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = _MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else descriptors // 2
    return Server(
        guard,
        listening,
        body_limit=body_limit,
        max_body_bytes=_MAX_BODY_BYTES,
        unauthenticated_share=unauthenticated_share,
        threads=_THREADS,
        ident="honcho-exec",
        max_request_header_size=_MAX_HEAD_BYTES,
        max_request_body_size=_MAX_BODY_BYTES,
        # A request may need files in addition to its connection.
        connection_limit=min(_MAX_CONNECTIONS, half),
        channel_timeout=_IDLE_SECONDS,
        cleanup_interval=_IDLE_CHECK_SECONDS,
        # select() fails at the 1,024th descriptor.
        asyncore_use_poll=True,
    )


def _redirect_logging() -> None:
    """Pass the records of waitress's logger to ours, not to stderr."""
    waitress = logging.getLogger("waitress")
    waitress.propagate = False
    waitress.handlers = [_Forward()]


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _log.isEnabledFor(record.levelno):
            _log.handle(record)


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket: waitress leaks threads if it cannot bind."""
    address = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    try:
        family, kind, _, _, resolved = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(resolved)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CannotListenError(f"cannot listen on {host}:{port}: {why}; --port and --host choose another") from error
    return listening


def _stop(_: int, __: FrameType | None) -> NoReturn:
    # waitress ends its loop on this exception, as on Ctrl-C.
    raise SystemExit
