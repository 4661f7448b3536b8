"""Renew the tokens of a grant at its endpoint."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import httpx

from honcho_exec.clock import Clock
from honcho_exec.errors import Rejected, Unavailable
from honcho_exec.net.oauth.grant_file import Tokens
from honcho_exec.net.transport import DeadlineTransport, request_deadline

__all__ = ["ADVICE", "RECHECK_SECONDS", "TIMEOUT_SECONDS", "HttpTokenEndpoint"]

ADVICE = "log in to Honcho again (`hermes memory setup`) or set HONCHO_API_KEY"
"""What a person can do about an invalid grant."""

TIMEOUT_SECONDS = 8.0
"""The limit of one renewal, and of the wait for another process's."""

RECHECK_SECONDS = 2.0
"""How often to check whether a person has logged in again."""

# The time that a running renewal gets when the provider closes.
_GRACE_SECONDS = 1.0
# When to try again while the endpoint fails.
_RETRY_SECONDS = 5.0
# The assumed life of a token, if the endpoint does not name it.
_DEFAULT_LIFE_SECONDS = 3600.0
_TOKEN = re.compile(r"[!-~]+")
_WAIT = {408, 425, 429}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class HttpTokenEndpoint:
    """The token endpoint that is stored with the grant.

    Args:
        honcho_url: the server that the tokens are for.
    """

    def __init__(self, honcho_url: str, clock: Clock) -> None:
        self._honcho_host = urlsplit(honcho_url).hostname
        self._clock = clock
        self._transport: DeadlineTransport | None = None
        self._idle = threading.Condition()
        self.closing = threading.Event()

    def renew(self, tokens: Tokens) -> Tokens:
        """See `oauth.TokenEndpoint.renew`."""
        self._check(tokens.endpoint)
        form = {"grant_type": "refresh_token", "client_id": tokens.client_id, "refresh_token": tokens.refresh}
        asked_at = self._clock.now()
        try:
            with self._sending(tokens.endpoint) as client:
                answer = client.post(tokens.endpoint, data=form)
        except httpx.HTTPError as error:
            text = f"the token endpoint {_shown(tokens.endpoint)} did not answer ({type(error).__name__})"
            raise Unavailable(text, cause="token", retry_after=_RETRY_SECONDS) from None
        return _read_answer(answer, tokens, asked_at)

    def abort(self) -> None:
        """Refuse the next renewal, and cut one that is under way and does not end within a second.

        A renewal that is cut may have spent the refresh token, and then the grant is lost.
        """
        self.closing.set()
        with self._idle:
            self._idle.wait_for(lambda: self._transport is None, _GRACE_SECONDS)
            transport = self._transport
        if transport is not None:
            transport.abort()

    @contextmanager
    def _sending(self, url: str) -> Iterator[httpx.Client]:
        """Open a client for one request, which the deadline of the waiting caller does not bound."""
        transport = DeadlineTransport(url, clock=self._clock)
        with self._idle:
            self._transport = transport
        if self.closing.is_set():
            transport.abort()
        try:
            with request_deadline(None), httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS) as client:
                yield client
        finally:
            with self._idle:
                self._transport = None
                self._idle.notify_all()

    def _check(self, url: str) -> None:
        """Raise unless the URL uses TLS, or leads to this machine or Honcho's own."""
        try:
            parts = urlsplit(url)
            safe = parts.scheme == "https" or (
                parts.scheme == "http" and parts.hostname in {*_LOOPBACK, self._honcho_host}
            )
        except ValueError:
            safe = False
        if not safe:
            text = "the grant's tokenEndpoint is not an https:// URL, so that nothing was sent to it"
            raise Rejected(f"{text}; {ADVICE}", cause="auth", retry_after=RECHECK_SECONDS)


def _read_answer(answer: httpx.Response, tokens: Tokens, asked_at: float) -> Tokens:
    shown, status = _shown(tokens.endpoint), answer.status_code
    try:
        body = answer.json()
    except ValueError:
        body = None
    said = body if isinstance(body, dict) else {}
    if status in _WAIT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise Unavailable(f"the token endpoint {shown} failed ({status})", cause="token", retry_after=_RETRY_SECONDS)
    if not answer.is_success:
        code = str(said.get("error", ""))
        why = code if re.fullmatch(r"[a-z_]{1,40}", code) else str(status)
        text = f"Honcho's login was revoked or has run out ({why} from {shown}); {ADVICE}"
        raise Rejected(text, cause="auth", status=status, retry_after=RECHECK_SECONDS)
    access, refresh = str(said.get("access_token") or ""), str(said.get("refresh_token") or tokens.refresh)
    if not (_TOKEN.fullmatch(access) and _TOKEN.fullmatch(refresh)):
        raise Unavailable(f"the token endpoint {shown} gave no tokens", cause="token", retry_after=_RETRY_SECONDS)
    life = said.get("expires_in")
    seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE_SECONDS
    return replace(
        tokens,
        access=access,
        refresh=refresh,
        expires_at=asked_at + seconds,
        scope=str(said.get("scope") or tokens.scope),
        kind=str(said.get("token_type") or tokens.kind),
    )


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
