"""A Honcho that takes access tokens only, and the token endpoint beside it, which revokes what is spent twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TOKEN_PATH", "Login"]

TOKEN_PATH = "/oauth/token"


class Login:
    """A WSGI app around Honcho's.

    Attributes:
        access, refresh: the pair that is good.
        life: how long the next access token is said to live (seconds).
        renewals: how often a pair was bought.
        reused: whether a refresh token came twice, upon which the grant is revoked.
        refuses: whether Honcho takes no token at all.
    """

    def __init__(self, honcho: WSGIApplication) -> None:
        self._honcho = honcho
        self._lock = threading.Lock()
        self._number = 0
        self.life = 3600
        self.renewals = 0
        self.reused = self.refuses = self.revoked = False
        self.access, self.refresh = self._pair()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == TOKEN_PATH:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, answer = self._renew({name: values[0] for name, values in parse_qs(body.decode()).items()})
        elif self.refuses or environ.get("HTTP_AUTHORIZATION") != f"Bearer {self.access}":
            status, answer = "401 Unauthorized", {"detail": "Invalid JWT"}
        else:
            return self._honcho(environ, start_response)
        start_response(status, [("content-type", "application/json")])
        return [json.dumps(answer).encode()]

    def expire(self) -> None:
        """End the access token before its time."""
        with self._lock:
            self.access = "nobody has it"

    def grant(self, url: str, *, expires_at: float) -> dict[str, Any]:
        """The pair as it stands in a block of Honcho's file."""
        return {
            "apiKey": self.access,
            "oauth": {
                "refreshToken": self.refresh,
                "expiresAt": int(expires_at),
                "clientId": "hermes-agent",
                "tokenEndpoint": url + TOKEN_PATH,
                "scope": "write",
                "tokenType": "Bearer",
            },
        }

    def log_in_again(self, file: Path, url: str, *, expires_at: float) -> None:
        """Begin a new grant, and put it into the file as a person's login does."""
        with self._lock:
            self.revoked = self.refuses = False
            self.access, self.refresh = self._pair()
        root = json.loads(file.read_text())
        root["hosts"]["hermes"] |= self.grant(url, expires_at=expires_at)
        file.write_text(json.dumps(root))

    def _pair(self) -> tuple[str, str]:
        self._number += 1
        return f"hch-at-access{self._number:020}", f"hch-rt-refresh{self._number:020}"

    def _renew(self, form: dict[str, str]) -> tuple[str, dict[str, Any]]:
        with self._lock:
            if form.get("grant_type") != "refresh_token" or form.get("client_id") != "hermes-agent":
                return "400 Bad Request", {"error": "invalid_request"}
            if self.revoked or form.get("refresh_token") != self.refresh:
                self.reused = self.reused or not self.revoked
                self.revoked = True
                return "400 Bad Request", {"error": "invalid_grant", "error_description": form.get("refresh_token")}
            self.renewals += 1
            self.access, self.refresh = self._pair()
            return "200 OK", {
                "access_token": self.access,
                "refresh_token": self.refresh,
                "expires_in": self.life,
                "token_type": "Bearer",
                "scope": "write",
            }
