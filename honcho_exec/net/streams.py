"""Sockets and TLS whose every operation is bounded by its request's deadline."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self, TypeVar

import httpcore

from honcho_exec.net.dns import addresses
from honcho_exec.net.sockets import new_socket, ready

__all__ = ["Backend", "Limits", "Stream"]

T = TypeVar("T")

_TLS_RECORD_BYTES = 64 * 1024


class Limits(Protocol):
    """How long the request of this thread may take, and whether it was cut."""

    def left(self) -> float:
        """Return the seconds left for the request; raise `TimeoutError` if there are none."""

    def patience(self) -> float:
        """Return the seconds until this is to be called again; raise if the request is cut or its time is up."""

    def track(self, stream: Stream) -> None:
        """Remember an open stream, so that it can be cut."""


class Backend(httpcore.NetworkBackend):
    """Opens connections for httpcore."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the request's deadline counts instead
        local_address: str | None = None,  # noqa: ARG002 - never asked for
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of `host` that accepts."""
        failure: OSError = OSError(f"{host} has no address")
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError):
            for family, kind, protocol, _, address in addresses(host, port, patience=self._limits.patience):
                stream = Stream(new_socket(family, kind, protocol), self._limits)
                try:
                    return stream.connect(address, socket_options or ())
                except OSError as error:
                    stream.close()
                    failure = error
            raise failure


class Stream(httpcore.NetworkStream):
    """A socket; tracked from before it is connected, so that a connect under way can be cut too."""

    def __init__(self, raw: Any, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        limits.track(self)

    def connect(self, address: Any, options: Iterable[Any]) -> Self:
        """Connect the socket."""
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in options:
            self._raw.setsockopt(*option)
        self._raw.settimeout(0.0)
        code = self._raw.connect_ex(address)
        while code in {errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK}:
            # A socket that is being connected cannot be woken, so this checks its limits regularly.
            if ready(self._raw, self._limits.patience(), writing=True):
                code = self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - see connect_tcp
        """See `httpcore.NetworkStream.read`."""
        with _mapped(httpcore.ReadTimeout, httpcore.ReadError):
            return self.receive(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see connect_tcp
        """See `httpcore.NetworkStream.write`."""
        with _mapped(httpcore.WriteTimeout, httpcore.WriteError):
            self.send(buffer)

    def receive(self, max_bytes: int) -> bytes:
        """Read, raising `OSError`."""
        self._raw.settimeout(self._limits.left())
        data: bytes = self._raw.recv(max_bytes)
        return data

    def send(self, buffer: bytes) -> None:
        """Write, raising `OSError`."""
        rest = memoryview(buffer)
        while rest:
            self._raw.settimeout(self._limits.left())
            rest = rest[self._raw.send(rest) :]

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - see connect_tcp
    ) -> httpcore.NetworkStream:
        """See `httpcore.NetworkStream.start_tls`."""
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError):
            if not isinstance(self._raw, socket.socket):
                # `ssl` has been given green sockets as well.
                return _TlsStream(self, ssl_context, server_hostname).shake_hands()
            # The handshake comes later: a wrapped socket gives its descriptor away, and cannot be cut any more.
            secure = ssl_context.wrap_socket(self._raw, server_hostname=server_hostname, do_handshake_on_connect=False)
            return Stream(secure, self._limits).shake_hands(secure)

    def shake_hands(self, secure: ssl.SSLSocket) -> Self:
        """Begin TLS; closes the stream when that fails."""
        try:
            secure.settimeout(self._limits.left())
            secure.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore.NetworkStream.get_extra_info`."""
        if info == "ssl_object":
            return self._raw if isinstance(self._raw, ssl.SSLSocket) else None
        if info == "is_readable":
            return ready(self._raw, 0)
        return {"socket": self._raw}.get(info)

    def cut(self) -> None:
        """Wake the thread that waits on this socket; safe in another thread, unlike close."""
        with suppress(OSError):
            # An SSLSocket's own shutdown removes TLS first: the rest of a message would be sent unencrypted. The
            # sockets of eventlet and gevent have other classes.
            raw: Any = self._raw
            if isinstance(raw, _socket.socket):
                _socket.socket.shutdown(raw, socket.SHUT_RDWR)
            else:
                raw.shutdown(socket.SHUT_RDWR)


class _TlsStream(httpcore.NetworkStream):
    """TLS over a stream, without anything that gevent or eventlet can replace."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    def shake_hands(self) -> Self:
        """Begin TLS; closes the stream when that fails."""
        try:
            self._run(self._tls.do_handshake)
        except BaseException:
            self.close()
            raise
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - see connect_tcp
        with _mapped(httpcore.ReadTimeout, httpcore.ReadError):
            try:
                return self._run(lambda: self._tls.read(max_bytes))
            except ssl.SSLEOFError:
                # HTTP knows whether the answer was whole.
                return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see connect_tcp
        with _mapped(httpcore.WriteTimeout, httpcore.WriteError):
            if buffer:
                self._run(lambda: self._tls.write(buffer))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._tls if info == "ssl_object" else self._stream.get_extra_info(info)

    def _run(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                self._stream.send(self._outgoing.read())
            data = self._stream.receive(_TLS_RECORD_BYTES)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


@contextmanager
def _mapped(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error
