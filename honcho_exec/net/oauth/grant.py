"""Use a grant's access token as the key; the first process that needs a new one renews it.

A refresh token can be used once. A second attempt looks like theft to the server, which then revokes the grant: so a
renewal holds the file's lock, begins by reading tokens that another process may have renewed, and is not repeated
blindly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Rejected, RequestError, Unavailable
from honcho_exec.net.oauth.grant_file import GrantFile, Tokens
from honcho_exec.net.oauth.token_endpoint import ADVICE, RECHECK_SECONDS, TIMEOUT_SECONDS
from honcho_exec.net.transport import time_left
from honcho_exec.storage.file_lock import exclusive

__all__ = ["Grant", "GrantAuth", "TokenEndpoint"]

_log = logging.getLogger(__name__)

# An access token is renewed before its end, so that it does not expire during a request; at most this share of a
# short life earlier.
_AHEAD_SECONDS = 120.0
_MAX_AHEAD_SHARE = 0.2
# The wait after a failed renewal, and after one whose token Honcho never accepted.
_PAUSE_SECONDS = 30.0
_UNACCEPTED_PAUSE_SECONDS = 600.0


class TokenEndpoint(Protocol):
    """Renews tokens."""

    def renew(self, tokens: Tokens) -> Tokens:
        """Spend the refresh token for the next pair.

        Raises:
            Rejected: the refresh token is no longer valid.
            Unavailable: the endpoint did not answer, or not with tokens.
        """


@dataclass(slots=True)
class _State:
    """The state of a grant, shared by the providers of this process; written with the file's lock held.

    Attributes:
        tokens: the newest tokens.
        version: the file's version when they were read or written.
        unsaved: the refresh token that was spent for them, if they could not be saved.
        ahead: seconds before their end at which they are renewed.
        renewed_at, failed_at: the last time each happened, on the monotonic clock.
        failure: why the last renewal failed, and `failed_with` which refresh token.
        taken, refused: the last access token that Honcho accepted, and the last one that it refused.
    """

    tokens: Tokens | None = None
    version: tuple[int, ...] | None = None
    unsaved: str | None = field(default=None, repr=False)
    ahead: float = _AHEAD_SECONDS
    renewed_at: float | None = None
    failed_at: float | None = None
    failure: RequestError | None = None
    failed_with: str | None = field(default=None, repr=False)
    taken: str | None = field(default=None, repr=False)
    refused: str | None = field(default=None, repr=False)


_states: dict[GrantFile, _State] = {}


class Grant:
    """One grant, shared by all threads of a process.

    Args:
        place: the file with the grant.
        endpoint: renews its tokens.
        clock: where time comes from.
        closing: when it is set, waiting for another process ends.
    """

    def __init__(self, place: GrantFile, endpoint: TokenEndpoint, clock: Clock, closing: threading.Event) -> None:
        self._place = place
        self._endpoint = endpoint
        self._clock = clock
        self._closing = closing
        self._state = _states.setdefault(place, _State())

    def __repr__(self) -> str:
        return f"<Grant {self._place.host} in {self._place.path}>"

    def token(self) -> str:
        """Return the access token, renewed if it is near its end.

        Raises:
            Rejected: the grant was revoked, or the token is refused although it was renewed.
            Unavailable: the token has expired and cannot be renewed now.
        """
        tokens = self._current()
        if tokens.access == self._state.refused:
            return self._renewed(tokens).access
        if tokens.refresh is None or self._clock.now() < tokens.expires_at - self._state.ahead:
            return tokens.access
        valid = self._clock.now() < tokens.expires_at
        if valid and self._failed(tokens) is not None:
            return tokens.access
        try:
            # Nobody waits for another's renewal while the present token is good.
            return self._renewed(tokens, patience=0.0 if valid else TIMEOUT_SECONDS).access
        except RequestError:
            if valid:
                return tokens.access
            raise

    def took(self, token: str) -> None:
        """Record that Honcho accepted an access token."""
        self._state.taken = token

    def instead_of(self, token: str) -> str | None:
        """Return an access token other than the refused one; None if there is no other. Raises as `token` does."""
        tokens = self._current()
        if tokens.access != token:
            return tokens.access
        if tokens.refresh is None:
            return None
        self._state.refused = token
        return self._renewed(tokens).access

    def _current(self) -> Tokens:
        """Return the newest tokens: those of the file, if another process has written it."""
        state, version = self._state, self._place.version()
        if state.tokens is None or version != state.version:
            found = self._place.read()
            if found is not None and (state.tokens is None or found.refresh is None or found.refresh != state.unsaved):
                state.tokens, state.unsaved = found, None
            state.version = version
        if state.tokens is None:
            text = f"{self._place.path} has no key any more; {ADVICE}"
            raise Rejected(text, cause="auth", retry_after=RECHECK_SECONDS)
        return state.tokens

    def _failed(self, tokens: Tokens) -> RequestError | None:
        """Return why these tokens cannot be renewed now; None if they can."""
        state = self._state
        if state.failure is None or state.failed_at is None or tokens.refresh != state.failed_with:
            return None
        lasting = isinstance(state.failure, Rejected) or self._clock.monotonic() < state.failed_at + _PAUSE_SECONDS
        # A new one each time: an error that is raised again and again gathers every place where it was.
        failure = state.failure
        again = type(failure)(str(failure), cause=failure.cause, status=failure.status, retry_after=failure.retry_after)
        return again if lasting else None

    def _renewed(self, seen: Tokens, *, patience: float = TIMEOUT_SECONDS) -> Tokens:
        """Return newer tokens than `seen`: another process's, or renewed now."""
        try:
            deadline = Deadline.after(time_left(patience), self._clock)
            with exclusive(self._place.lock, deadline, stop=self._closing.is_set, keep=True):
                self._state.version = None
                current = self._current()
                if current.access != seen.access:
                    return current
                return self._renew(current)
        except TimeoutError:
            raise Unavailable("another process is just renewing the key", cause="token", retry_after=1.0) from None
        except OSError as error:
            # Whoever cannot write down the next pair must not spend this one.
            text = f"the key cannot be renewed: {self._place.lock}: {error.strerror}; make its folder writable"
            raise Rejected(text, cause="auth", retry_after=RECHECK_SECONDS) from None

    def _renew(self, current: Tokens) -> Tokens:
        state, now = self._state, self._clock.monotonic()
        if (failure := self._failed(current)) is not None:
            raise failure
        bought = state.renewed_at is not None and now < state.renewed_at + _UNACCEPTED_PAUSE_SECONDS
        if bought and current.access == state.refused != state.taken:
            text = f"Honcho refuses a key that was just renewed; {ADVICE}"
            raise Rejected(text, cause="auth", retry_after=RECHECK_SECONDS)
        try:
            fresh = self._endpoint.renew(current)
        except RequestError as error:
            if not self._closing.is_set():
                state.failure, state.failed_at, state.failed_with = error, now, current.refresh
                _log.error("the key was not renewed: %s", error)
            raise
        state.ahead = min(_AHEAD_SECONDS, (fresh.expires_at - self._clock.now()) * _MAX_AHEAD_SHARE)
        state.tokens, state.renewed_at = fresh, now
        state.failure = state.refused = None
        self._keep(fresh, current)
        return fresh

    def _keep(self, fresh: Tokens, spent: Tokens) -> None:
        state = self._state
        try:
            self._place.write(fresh)
            state.unsaved = None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            state.unsaved = spent.refresh
            why = getattr(error, "strerror", None) or type(error).__name__
            _log.error(
                "the renewed key could not be written to %s (%s): it is lost when this process ends; %s",
                self._place.path,
                why,
                ADVICE,
            )
        state.version = self._place.version()


class GrantAuth(httpx.Auth):
    """Adds a grant's access token to every request, and a renewed one if Honcho refuses it."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth.sync_auth_flow`; raises what `Grant.token` raises, before anything is sent."""
        token = self._grant.token()
        request.headers["Authorization"] = f"Bearer {token}"
        while (yield request).status_code == httpx.codes.UNAUTHORIZED:
            fresh = self._grant.instead_of(token)
            if fresh is None:
                return
            token = fresh
            request.headers["Authorization"] = f"Bearer {token}"
        self._grant.took(token)
