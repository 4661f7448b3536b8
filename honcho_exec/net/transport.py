"""HTTP whose time is the wall clock's, and which another thread can cut off."""

from __future__ import annotations

import _socket
import errno
import functools
import os
import socket
import ssl
import threading
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpcore
import httpx

from honcho_exec.clock import Clock, Deadline
from honcho_exec.net.dns import addresses
from honcho_exec.net.sockets import new_socket, ready
from honcho_exec.runtime.idle import Idle

__all__ = ["DeadlineTransport", "request_deadline", "time_left"]

T = TypeVar("T")

_MAX_BODY = 64 * 1024 * 1024
_IDENTITY = (b"Accept-Encoding", b"identity")
_TICK = 0.1
_RECORD = 64 * 1024
# Connections that have had no request for so long are given back (seconds): a little before the server does, whose
# usual patience is five, since a request that meets the closing is in doubt.
_IDLE = 4.0

_ambient: ContextVar[Deadline | None] = ContextVar("honcho_exec_request_deadline", default=None)


@contextmanager
def request_deadline(deadline: Deadline | None) -> Iterator[None]:
    """Bound every request made inside by `deadline` as well as by its own timeout, and by a deadline outside."""
    outer = _ambient.get()
    token = _ambient.set(
        min((one for one in (deadline, outer) if one is not None), key=lambda one: one.at, default=None)
    )
    try:
        yield
    finally:
        _ambient.reset(token)


def time_left(seconds: float) -> float:
    """So many seconds, or what the deadline around this call leaves of them."""
    deadline = _ambient.get()
    return seconds if deadline is None else min(seconds, deadline.remaining())


class DeadlineTransport(httpx.BaseTransport):
    """An httpx transport for one server.

    A request's timeout bounds it from its start to its last byte, even when the server drips bytes or never
    stops sending; a connection on which that happened is not used again. httpx's own timeouts bound each
    socket operation only. A compressed answer is refused. Connections are given back after four seconds
    without a request.

    Args:
        base_url: the server; decides whether the environment's proxy applies.
        clock: where time comes from.
        max_connections: the most connections at a time.
    """

    def __init__(self, base_url: str, *, clock: Clock, max_connections: int = 20) -> None:
        self._clock = clock
        self._current = threading.local()
        self._streams: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._aborted = False
        self._secure = base_url.startswith("https")
        self._max_connections = max_connections
        self._proxy = _proxy_for(base_url)
        self._pool: httpcore.ConnectionPool | None = None
        self._idle = Idle(self._give_back, after=_IDLE)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport.handle_request`."""
        timeouts = request.extensions.get("timeout", {})
        deadline = Deadline.after(timeouts.get("read") or 30.0, self._clock)
        ambient = _ambient.get()
        if ambient is not None and ambient.at < deadline.at:
            deadline = ambient
        self._current.deadline = deadline
        with _as_httpx(request), self._request() as pool:
            response = pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=_uncompressed(request.headers).raw,
                    content=request.stream,
                    extensions={**request.extensions, "timeout": {"pool": deadline.remaining()}},
                )
            )
            if any(name.lower() == b"content-encoding" and value != b"identity" for name, value in response.headers):
                response.close()
                raise httpx.DecodingError("the answer is compressed, which was not asked for", request=request)
            assert isinstance(response.stream, Iterable)  # noqa: S101 - httpcore's sync pool gives a sync stream
            return httpx.Response(
                status_code=response.status,
                headers=response.headers,
                stream=_Body(response.stream, request, ended=self._idle.end),
                extensions=response.extensions,
            )

    def abort(self) -> None:
        """Cut every request that is under way and refuse new ones; harmless when called again."""
        with self._lock:
            self._aborted = True
            streams = list(self._streams)
        for stream in streams:
            stream.cut()

    def close(self) -> None:
        """Give the connections back."""
        self._idle.close()
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    @contextmanager
    def _request(self) -> Iterator[httpcore.ConnectionPool]:
        """Count a request until its answer has been read, or until it fails."""
        self._idle.begin()
        with self._lock:
            if self._pool is None:
                self._pool = self._new_pool()
            pool = self._pool
        try:
            yield pool
        except BaseException:
            self._idle.end()
            raise

    def _new_pool(self) -> httpcore.ConnectionPool:
        options: dict[str, Any] = {
            "ssl_context": _ssl_context() if self._secure else None,
            "max_connections": self._max_connections,
            "max_keepalive_connections": self._max_connections,
            "keepalive_expiry": _IDLE,
            "network_backend": _Backend(self),
        }
        return (
            httpcore.HTTPProxy(proxy_url=self._proxy, **options) if self._proxy else httpcore.ConnectionPool(**options)
        )

    def left(self) -> float:
        """Seconds left for the request of this thread; raises when there are none."""
        deadline: Deadline = self._current.deadline
        remaining = deadline.remaining()
        if remaining <= 0.0:
            raise TimeoutError("the request's time is up")
        return remaining

    def patience(self) -> float:
        """Seconds after which whoever cannot be woken looks up; raises when the request is cut or its time is up."""
        if self._aborted:
            raise ConnectionAbortedError("the transport is closed")
        return min(_TICK, self.left())

    def track(self, stream: _Stream) -> None:
        """Remember an open stream so that `abort` can cut it."""
        with self._lock:
            self._streams.add(stream)
            aborted = self._aborted
        if aborted:
            stream.close()
            raise ConnectionAbortedError("the transport is closed")


class _Backend(httpcore.NetworkBackend):
    """Opens connections whose every operation is bounded by its request's deadline."""

    def __init__(self, transport: DeadlineTransport) -> None:
        self._transport = transport

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the request's deadline counts instead
        local_address: str | None = None,  # noqa: ARG002 - never asked for
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: OSError = OSError(f"{host} has no address")
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError):
            for family, kind, protocol, _, address in addresses(host, port, patience=self._transport.patience):
                stream = _Stream(new_socket(family, kind, protocol), self._transport)
                try:
                    return stream.connect(address, socket_options or ())
                except OSError as error:
                    stream.close()
                    failure = error
            raise failure


class _Stream(httpcore.NetworkStream):
    """A socket; tracked from before it is connected, so that a connect under way can be cut too."""

    def __init__(self, raw: Any, transport: DeadlineTransport) -> None:
        self._raw = raw
        self._transport = transport
        transport.track(self)

    def connect(self, address: Any, options: Iterable[Any]) -> Self:
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in options:
            self._raw.setsockopt(*option)
        self._raw.settimeout(0.0)
        code = self._raw.connect_ex(address)
        while code in {errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK}:
            # A socket that is being connected cannot be woken; so it looks up now and then.
            if ready(self._raw, self._transport.patience(), writing=True):
                code = self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - see connect_tcp
        with _mapped(httpcore.ReadTimeout, httpcore.ReadError):
            return self.receive(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see connect_tcp
        with _mapped(httpcore.WriteTimeout, httpcore.WriteError):
            self.send(buffer)

    def receive(self, max_bytes: int) -> bytes:
        """Like `read`, with the system's errors."""
        self._raw.settimeout(self._transport.left())
        data: bytes = self._raw.recv(max_bytes)
        return data

    def send(self, buffer: bytes) -> None:
        """Like `write`, with the system's errors."""
        rest = memoryview(buffer)
        while rest:
            self._raw.settimeout(self._transport.left())
            rest = rest[self._raw.send(rest) :]

    def close(self) -> None:
        self._raw.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - see connect_tcp
    ) -> httpcore.NetworkStream:
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError):
            if not isinstance(self._raw, socket.socket):
                # `ssl` has been given green sockets as well.
                return _TlsStream(self, ssl_context, server_hostname).shake_hands()
            # The handshake comes after: a socket that is wrapped gives its descriptor away, and is cut no more.
            secure = ssl_context.wrap_socket(self._raw, server_hostname=server_hostname, do_handshake_on_connect=False)
            return _Stream(secure, self._transport).shake_hands(secure)

    def shake_hands(self, secure: ssl.SSLSocket) -> Self:
        """Begin TLS; closes the stream when that fails."""
        try:
            secure.settimeout(self._transport.left())
            secure.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._raw if isinstance(self._raw, ssl.SSLSocket) else None
        if info == "is_readable":
            return ready(self._raw, 0)
        return {"socket": self._raw}.get(info)

    def cut(self) -> None:
        """Wake whoever waits on this socket; safe from another thread, unlike close."""
        with suppress(OSError):
            # An SSLSocket's own shutdown takes TLS away first: what is being sent would go out in the open. The sockets
            # of eventlet and gevent are of classes of their own.
            raw: Any = self._raw
            if isinstance(raw, _socket.socket):
                _socket.socket.shutdown(raw, socket.SHUT_RDWR)
            else:
                raw.shutdown(socket.SHUT_RDWR)


class _TlsStream(httpcore.NetworkStream):
    """TLS over a stream, made of nothing that can be green."""

    def __init__(self, stream: _Stream, context: ssl.SSLContext, server_hostname: str | None) -> None:
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
            data = self._stream.receive(_RECORD)
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


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes], request: httpx.Request, *, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._request = request
        self._ended: Callable[[], None] | None = ended

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        with _as_httpx(self._request):
            for part in self._stream:
                size += len(part)
                if size > _MAX_BODY:
                    raise httpx.ReadError(f"the answer is longer than {_MAX_BODY} bytes", request=self._request)
                yield part

    def close(self) -> None:
        ended, self._ended = self._ended, None
        try:
            if hasattr(self._stream, "close"):
                self._stream.close()
        finally:
            if ended is not None:
                ended()


def _uncompressed(headers: httpx.Headers) -> httpx.Headers:
    """The same, asking for an answer as it is: of a compressed one, nothing bounds what it becomes."""
    return httpx.Headers([*((k, v) for k, v in headers.raw if k.lower() != b"accept-encoding"), _IDENTITY])


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Raise httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
    ) as error:
        kind = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error) or type(error).__name__, request=request) from error


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """One for the process: loading the certificates takes long, and each holds them all."""
    return httpx.create_ssl_context()


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for this server, if any."""
    parts = urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
