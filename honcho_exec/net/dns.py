"""Look up addresses on daemon threads, so that a request can stop waiting for them."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from typing import Any

from honcho_exec.forks import PerProcess, on_fork_in_child
from honcho_exec.net.sockets import getaddrinfo

__all__ = ["addresses"]

_lock = PerProcess(threading.Lock)
_under_way: dict[tuple[str, int], _Lookup] = {}


@on_fork_in_child
def _after_fork() -> None:
    # Their threads are the parent's.
    _under_way.clear()


def addresses(host: str, port: int, *, patience: Callable[[], float]) -> list[Any]:
    """Return the answer of `socket.getaddrinfo` for TCP to a host.

    The system's own time limit is often half a minute, and nothing can cut it. So a name is looked up on a daemon
    thread, one for each name at a time. Python 3.12 starts no thread while it exits; then the caller's thread does it.

    Args:
        host: a name or an IP address.
        port: the port.
        patience: returns the seconds to wait before it is called again; raises to stop waiting.

    Raises:
        OSError: the name is unknown, or cannot be looked up.
    """
    if _is_at_hand(host):
        return _look_up(host, port)
    with _lock():
        lookup = _under_way.get((host, port))
        if lookup is None:
            lookup = _Lookup(host, port)
            thread = threading.Thread(target=lookup.run, name="honcho-lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                lookup = None
            else:
                _under_way[host, port] = lookup
    if lookup is None:
        return _look_up(host, port)
    while not lookup.done.wait(patience()):
        pass
    return lookup.result()


class _Lookup:
    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self._key = host, port
        self._found: list[Any] = []
        self._failure: OSError | None = None

    def run(self) -> None:
        try:
            self._found = _look_up(*self._key)
        except OSError as error:
            self._failure = error
        finally:
            with _lock():
                _under_way.pop(self._key, None)
            self.done.set()

    def result(self) -> list[Any]:
        if self._failure is not None:
            # A new error for each waiting thread, since raising writes to it.
            raise type(self._failure)(*self._failure.args)
        return self._found


def _look_up(host: str, port: int) -> list[Any]:
    try:
        return getaddrinfo(host, port)
    except UnicodeError as error:
        raise OSError(f"{host} is not a host name") from error


def _is_at_hand(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
