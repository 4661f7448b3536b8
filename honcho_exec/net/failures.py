"""What became of a request that failed: the one place where foreign errors and HTTP's numbers get their fate."""

from __future__ import annotations

from http import HTTPStatus

import httpx

from honcho_exec.errors import Ambiguous, Rejected, RequestError, Unavailable, Unreached

__all__ = ["LATE", "broken_off", "has_detail", "not_honchos", "timed_out", "was_refused"]

LATE = 3.0
"""A server whose answer did not come in time may still be at the work; it is done with it by then (seconds)."""

# A server that was reset, or a proxy that lost the answer: what was begun ends soon (seconds).
_SOON = 1.0
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_KEY = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_WAIT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
# An intermediary may answer with these after Honcho has done the work: a bot check, a rate limit that counts answers, a
# time limit. Another attempt may pass. Honcho sends them only in JSON with a `detail`.
_INTERMEDIARY = {HTTPStatus.IM_A_TEAPOT, *_WAIT}
_LATER: dict[int, float] = {
    HTTPStatus.BAD_GATEWAY: _SOON,
    HTTPStatus.SERVICE_UNAVAILABLE: _SOON,
    HTTPStatus.GATEWAY_TIMEOUT: LATE,
}


def timed_out(shown: str, error: BaseException | None, took: float) -> RequestError:
    """No answer came in time, after `took` seconds."""
    text = f"{shown} did not answer within {took:.1f} s"
    if isinstance(error, _NO_CONNECTION):
        return Unreached(text, cause="timeout")
    if isinstance(error, httpx.PoolTimeout):
        return Unavailable(text, cause="timeout")
    return Ambiguous(text, cause="timeout", late=LATE)


def broken_off(shown: str, error: BaseException | None) -> RequestError:
    """There was no connection, or it broke."""
    if isinstance(error, _NO_CONNECTION):
        return Unreached(f"{shown} cannot be reached: {error}", cause="connection")
    return Ambiguous(f"the connection to {shown} broke: {type(error).__name__}", cause="connection", late=_SOON)


def not_honchos(shown: str) -> Ambiguous:
    """An answer came and was not what Honcho answers: a proxy's page, or another server."""
    return Ambiguous(f"{shown} gave an answer that is not Honcho's", cause="bad_answer")


def has_detail(answer: httpx.Response) -> bool:
    """Whether an error answer has the shape of Honcho's: a JSON object with a `detail`."""
    try:
        said = answer.json()
    except ValueError:
        return False
    return isinstance(said, dict) and "detail" in said


def was_refused(
    shown: str, status: int, said: str, *, retry_after: float | None = None, by_honcho: bool = True
) -> RequestError:
    """An answer came that is no success.

    Args:
        shown: the server, as it may be shown.
        status: HTTP's number.
        said: what the server said of it, without what was sent.
        retry_after: seconds that the server asks to wait.
        by_honcho: whether the answer has the shape of Honcho's errors.
    """
    redirected = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    if redirected or status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or (status in _INTERMEDIARY and not by_honcho):
        return Ambiguous(
            f"something in front of {shown} answered ({status}): {said}",
            cause="rate_limited" if status in _WAIT else "refused",
            status=status,
            retry_after=retry_after,
            late=_SOON,
        )
    if status in _KEY:
        return Rejected(
            f"{shown} refused the key ({status}); set HONCHO_API_KEY to one that is valid for this server",
            cause="auth",
            status=status,
            by_honcho=by_honcho,
        )
    if status in _WAIT:
        return Unavailable(
            f"{shown} asks to wait ({status})", cause="rate_limited", status=status, retry_after=retry_after
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        return Ambiguous(
            f"{shown} failed ({status}): {said}",
            cause="server_error",
            status=status,
            retry_after=retry_after,
            late=_LATER.get(status, 0.0),
        )
    cause = "not_found" if status == HTTPStatus.NOT_FOUND else "refused"
    return Rejected(f"{shown} refused the request ({status}): {said}", cause=cause, status=status, by_honcho=by_honcho)
