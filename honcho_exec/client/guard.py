"""The single path for SDK requests: circuit breaker, timing, and translation of SDK errors."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import cast

import honcho
import httpx
import pydantic

from honcho_exec.clock import Clock
from honcho_exec.embedded.wire import FILTERS_HEADER
from honcho_exec.errors import RequestError, StateError
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.failures import connection_failed, from_status, has_detail, timed_out, unexpected_response
from honcho_exec.runtime.metrics import Meter

__all__ = ["RequestGuard"]

# What the circuit breaker counts; a 4xx is an answer of a server that works.
_SERVER_FAILED = {"timeout", "connection", "server_error", "bad_answer"}

_LONGEST_WAIT_SECONDS = 86_400.0


class RequestGuard:
    """Makes requests and keeps the last response of each thread; usable from any thread.

    Args:
        url: the server's address for messages, without secrets.
    """

    def __init__(self, url: str, *, clock: Clock, breaker: Breaker, meter: Meter) -> None:
        self._url = url
        self._clock = clock
        self._breaker = breaker
        self._meter = meter
        self._local = threading.local()
        self._filters: frozenset[str] = frozenset()

    def has_filter(self, name: str) -> bool:
        """Return whether the server announced a filter that other Honcho servers do not have."""
        return name in self._filters

    @property
    def answer(self) -> httpx.Response:
        """The last response to this thread."""
        return cast("httpx.Response", self._local.response)

    @contextmanager
    def request(self, *, ignore_breaker: bool = False, counts_for_breaker: bool = True) -> Iterator[None]:
        """Make a request inside: refused while the breaker is open, timed, with its errors translated.

        Args:
            ignore_breaker: whether to make it also while the breaker is open.
            counts_for_breaker: False if a language model answers, whose failure says little of the server.
        """
        self._breaker.acquire(ignore=ignore_breaker)
        self._local.retry_after = None
        self._local.begun = begun = self._clock.monotonic()
        try:
            with self._translated():
                yield
        except RequestError as error:
            if error.cause in _SERVER_FAILED:
                if self._breaker.record_failure(error, counts=counts_for_breaker):
                    self._meter.count("breaker_opened")
            else:
                self._breaker.record_success()
            raise
        except BaseException:
            self._breaker.cancel()
            raise
        else:
            self._breaker.record_success()
        finally:
            self._meter.request_took(self._clock.monotonic() - begun)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except honcho.HonchoError as error:
            # Their texts may repeat what was sent or stored, and a log shows those of every cause.
            raise self._translate(error) from None
        except (pydantic.ValidationError, ValueError, TypeError, KeyError, AttributeError):
            # The answer came and was not what Honcho answers: a proxy's page, or another server.
            raise unexpected_response(self._url) from None

    def _translate(self, error: honcho.HonchoError) -> RequestError | StateError:
        root = error.__cause__
        if isinstance(root, StateError):
            return root
        if isinstance(error, honcho.TimeoutError):
            return timed_out(self._url, root, self._clock.monotonic() - self._local.begun)
        if isinstance(error, honcho.ConnectionError):
            if isinstance(root, ValueError | LookupError | TypeError | RecursionError | httpx.DecodingError):
                return unexpected_response(self._url)
            return connection_failed(self._url, root)
        return from_status(self._url, self.answer, retry_after=self._local.retry_after)

    def check_answer(self, field: str) -> None:
        """Raise unless the last answer has `field`: the SDK takes any other JSON object for an empty answer."""
        body = self.answer.json()
        if not isinstance(body, dict) or field not in body:
            raise KeyError(field)

    def check_list(self) -> None:
        """Raise unless the last answer is a list: the SDK takes an empty JSON object for an empty one."""
        if not isinstance(self.answer.json(), list):
            raise TypeError("a list was expected")

    def has_detail(self) -> bool:
        """Return whether the last response is a refusal in Honcho's form, not a proxy's or another server's."""
        return has_detail(self.answer)

    def note_answer(self, response: httpx.Response) -> None:
        """Keep a response; a hook of the HTTP client."""
        self._local.response = response
        self._filters = frozenset(response.headers.get(FILTERS_HEADER, "").split())
        # The SDK hands Retry-After on for 429 only; a 503 carries one too.
        self._local.retry_after = _seconds(response.headers.get("retry-after"), self._clock)


def _seconds(header: str | None, clock: Clock) -> float | None:
    """Return the seconds that a server asks to wait, at most a day; None if it does not ask."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        moment = _moment(header)
        if moment is None:
            return None
        seconds = moment - clock.now()
    return min(max(0.0, seconds), _LONGEST_WAIT_SECONDS) if math.isfinite(seconds) else None


def _moment(header: str) -> float | None:
    """Return an HTTP date in seconds since the epoch; None if it is none."""
    try:
        moment = parsedate_to_datetime(header)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
