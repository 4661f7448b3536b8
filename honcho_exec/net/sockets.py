"""Choose sockets that wait in the same way as the program's threads.

gevent and eventlet can replace sockets without threads. A green socket waits in the hub of the thread that made it: in
another thread it fails or hangs, and files of the hub stay open when its thread ends. Real threads can wait in the
system, so they get its sockets.
"""

from __future__ import annotations

import _socket
import _thread
import select
import socket
from importlib.util import find_spec, module_from_spec
from types import BuiltinFunctionType
from typing import Any

__all__ = ["getaddrinfo", "new_socket", "ready"]


def _original_select() -> Any:
    """Return `select.select` from another copy of its module, which nothing has replaced."""
    spec: Any = find_spec("select")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.select


_select = _original_select()


def getaddrinfo(host: str, port: int) -> list[Any]:
    """Return the answer of `socket.getaddrinfo` for TCP."""
    source: Any = _socket if _apart() else socket
    found: list[Any] = source.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return found


def new_socket(family: int, kind: int, protocol: int) -> Any:
    """Return a `socket.socket`, or a `_socket.socket` if only sockets were replaced, not threads."""
    return (_socket if _apart() else socket).socket(family, kind, protocol)


def ready(one: Any, seconds: float, *, writing: bool = False) -> bool:
    """Wait until a socket can be read from, or written to, and return whether it can."""
    wait = _select if _threads_are_real() else select.select
    readable, writable, _ = wait([] if writing else [one], [one] if writing else [], [], seconds)
    return bool(readable or writable)


def _apart() -> bool:
    return not issubclass(socket.socket, _socket.socket) and _threads_are_real()


def _threads_are_real() -> bool:
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)
