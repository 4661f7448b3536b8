"""HTTP requests bounded by deadlines on the wall clock, which another thread can cut off."""

from __future__ import annotations

import functools
import ssl
import threading
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from honcho_exec.clock import Clock, Deadline
from honcho_exec.net.streams import Backend, Stream
from honcho_exec.runtime.idle import Idle

__all__ = ["DeadlineTransport", "request_deadline", "time_left"]

_MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_CONNECTIONS = 20
_IDENTITY = (b"Accept-Encoding", b"identity")
_CHECK_SECONDS = 0.1
# A little shorter than the usual five seconds of a server: a request that meets the closing is in doubt.
_KEEPALIVE_SECONDS = 4.0

_ambient: ContextVar[Deadline | None] = ContextVar("honcho_exec_request_deadline", default=None)


@contextmanager
def request_deadline(deadline: Deadline | None) -> Iterator[None]:
    """Bound the requests inside by `deadline`, in addition to their timeouts and outer deadlines."""
    outer = _ambient.get()
    bounds = [bound for bound in (deadline, outer) if bound is not None]
    token = _ambient.set(min(bounds, key=lambda bound: bound.at, default=None))
    try:
        yield
    finally:
        _ambient.reset(token)


def time_left(seconds: float) -> float:
    """Return `seconds`, or less if the deadline around this call is sooner."""
    deadline = _ambient.get()
    return seconds if deadline is None else min(seconds, deadline.remaining())


class DeadlineTransport(httpx.BaseTransport):
    """An httpx transport for one server.

    A request's timeout bounds it from its start to its last byte, even when the server drips bytes or never
    stops sending; a connection on which that happened is not used again. httpx's own timeouts bound each
    socket operation only. A compressed answer is refused. Connections are closed after four seconds
    without a request.

    Args:
        base_url: the server; decides whether the environment's proxy applies.
        clock: where time comes from.
    """

    def __init__(self, base_url: str, *, clock: Clock) -> None:
        self._clock = clock
        self._current = threading.local()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._aborted = False
        self._secure = base_url.startswith("https")
        self._proxy = _proxy_for(base_url)
        self._pool: httpcore.ConnectionPool | None = None
        self._idle = Idle(self._give_back, after=_KEEPALIVE_SECONDS)

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
        """Cut all requests that are under way and refuse new ones; calling it again does nothing."""
        with self._lock:
            self._aborted = True
            streams = list(self._streams)
        for stream in streams:
            stream.cut()

    def close(self) -> None:
        """Close the connections."""
        self._idle.close()
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    @contextmanager
    def _request(self) -> Iterator[httpcore.ConnectionPool]:
        """Count a request as a use of the pool until its answer has been read, or until it fails."""
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
            "max_connections": _MAX_CONNECTIONS,
            "max_keepalive_connections": _MAX_CONNECTIONS,
            "keepalive_expiry": _KEEPALIVE_SECONDS,
            "network_backend": Backend(self),
        }
        return (
            httpcore.HTTPProxy(proxy_url=self._proxy, **options) if self._proxy else httpcore.ConnectionPool(**options)
        )

    def left(self) -> float:
        """See `Limits.left`."""
        deadline: Deadline = self._current.deadline
        remaining = deadline.remaining()
        if remaining <= 0.0:
            raise TimeoutError("the request's time is up")
        return remaining

    def patience(self) -> float:
        """See `Limits.patience`."""
        if self._aborted:
            raise ConnectionAbortedError("the transport is closed")
        return min(_CHECK_SECONDS, self.left())

    def track(self, stream: Stream) -> None:
        """See `Limits.track`."""
        with self._lock:
            self._streams.add(stream)
            aborted = self._aborted
        if aborted:
            stream.close()
            raise ConnectionAbortedError("the transport is closed")


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
                if size > _MAX_BODY_BYTES:
                    raise httpx.ReadError(f"the answer is longer than {_MAX_BODY_BYTES} bytes", request=self._request)
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
    """Ask for an uncompressed answer, since nothing bounds the size of a compressed one."""
    return httpx.Headers([*((k, v) for k, v in headers.raw if k.lower() != b"accept-encoding"), _IDENTITY])


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Translate httpcore's errors to httpx's, which have the same names."""
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
    """Return the context of this process: loading certificates is slow, and each context holds all of them."""
    return httpx.create_ssl_context()


def _proxy_for(base_url: str) -> str | None:
    """Return the proxy that the environment names for this server, if any."""
    parts = urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
