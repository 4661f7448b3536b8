"""Classify failed requests as rejected, not sent or ambiguous, from HTTP statuses and errors of httpx."""

from __future__ import annotations

import re
from http import HTTPStatus

import httpx

from honcho_exec.errors import Ambiguous, Rejected, RequestError, Unavailable, Unreached

__all__ = ["LATE_SECONDS", "connection_failed", "from_status", "has_detail", "timed_out", "unexpected_response"]

LATE_SECONDS = 3.0
"""Seconds after which a server whose answer did not come in time has surely finished the work."""

# After a reset, or an answer that a proxy lost, the server has finished the work by then.
_RESET_LATE_SECONDS = 1.0
_HINT = ": this does not look like a Honcho server, is HONCHO_BASE_URL right?"
_IDENTIFIER = re.compile(r"[a-z0-9_]{1,40}")
_MAX_FIELDS = 10
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_KEY = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_WAIT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
# An intermediary may answer with these after Honcho has done the work: a bot check, a rate limit that counts answers, a
# time limit. Another attempt may pass. Honcho sends them only in JSON with a `detail`.
_INTERMEDIARY = {HTTPStatus.IM_A_TEAPOT, *_WAIT}
_LATE_BY_STATUS: dict[int, float] = {
    HTTPStatus.BAD_GATEWAY: _RESET_LATE_SECONDS,
    HTTPStatus.SERVICE_UNAVAILABLE: _RESET_LATE_SECONDS,
    HTTPStatus.GATEWAY_TIMEOUT: LATE_SECONDS,
}


def timed_out(shown: str, error: BaseException | None, took: float) -> RequestError:
    """Classify a request without an answer after `took` seconds."""
    text = f"{shown} did not answer within {took:.1f} s"
    if isinstance(error, _NO_CONNECTION):
        return Unreached(text, cause="timeout")
    if isinstance(error, httpx.PoolTimeout):
        return Unavailable(text, cause="timeout")
    return Ambiguous(text, cause="timeout", late=LATE_SECONDS)


def connection_failed(shown: str, error: BaseException | None) -> RequestError:
    """Classify a connection that was not made, or broke."""
    if isinstance(error, _NO_CONNECTION):
        return Unreached(f"{shown} cannot be reached: {error}", cause="connection")
    text = f"the connection to {shown} broke: {type(error).__name__}"
    return Ambiguous(text, cause="connection", late=_RESET_LATE_SECONDS)


def unexpected_response(shown: str) -> Ambiguous:
    """Classify an answer that is not Honcho's: a proxy's page, or another server's."""
    return Ambiguous(f"{shown} gave an answer that is not Honcho's", cause="bad_answer")


def has_detail(answer: httpx.Response) -> bool:
    """Whether an error answer has Honcho's shape: a JSON object with a `detail`."""
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and "detail" in said


def from_status(shown: str, answer: httpx.Response, *, retry_after: float | None = None) -> RequestError:
    """Classify an answer whose status is not a success.

    The error quotes nothing that the server says, since servers and proxies repeat what was sent.

    Args:
        shown: the server, as it may be shown.
        answer: its answer.
        retry_after: seconds that the server asks to wait.
    """
    status, by_honcho = answer.status_code, has_detail(answer)
    redirected = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    if redirected or status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or (status in _INTERMEDIARY and not by_honcho):
        return Ambiguous(
            f"something in front of {shown} answered ({status}){_HINT}",
            cause="rate_limited" if status in _WAIT else "refused",
            status=status,
            retry_after=retry_after,
            late=_RESET_LATE_SECONDS,
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
            f"{shown} failed ({status})",
            cause="server_error",
            status=status,
            retry_after=retry_after,
            late=_LATE_BY_STATUS.get(status, 0.0),
        )
    return Rejected(
        f"{shown} refused the request ({status}){_invalid_fields(answer) if by_honcho else _HINT}",
        cause="not_found" if status == HTTPStatus.NOT_FOUND else "refused",
        status=status,
        by_honcho=by_honcho,
    )


def _invalid_fields(answer: httpx.Response) -> str:
    """Name the fields that a 422 refuses, each with the type of the error."""
    problems = answer.json()["detail"]
    if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY or not isinstance(problems, list):
        return ""
    named = [_invalid_field(problem) for problem in problems[:_MAX_FIELDS] if isinstance(problem, dict)]
    return ": " + "; ".join(named) if named else ""


def _invalid_field(problem: dict[str, object]) -> str:
    loc = problem.get("loc")
    path: list[str] = []
    for part in loc[:_MAX_FIELDS] if isinstance(loc, list) else ():
        path.append(_identifier(part))
        if part == "metadata":
            # Its keys are the user's.
            break
    return f"{'.'.join(path) or '?'} ({_identifier(problem.get('type'))})"


def _identifier(value: object) -> str:
    """Return a name of the API's, or a number; a question mark for any other text."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if _IDENTIFIER.fullmatch(text) else "?"
