"""Open the configured Honcho: a server, or the embedded one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from honcho_exec.clock import Clock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.net.oauth.grant import Grant, GrantAuth
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.net.oauth.token_endpoint import HttpTokenEndpoint
from honcho_exec.net.transport import DeadlineTransport
from honcho_exec.settings import EMBEDDED, Settings

__all__ = ["Backend", "open_backend", "open_model"]

_EMBEDDED_URL = "http://embedded.honcho"


@dataclass(frozen=True, slots=True)
class Backend:
    """An HTTP client for one Honcho.

    Attributes:
        url: the base of requests.
        shown: the same for messages, without secrets.
        api_key: the bearer key; None if none is set.
        http: the client.
        abort: aborts running requests and refuses later ones; may be called again.
        close: closes connections and files.
    """

    url: str
    shown: str
    api_key: str | None
    http: httpx.Client
    abort: Callable[[], None]
    close: Callable[[], None]


def open_backend(settings: Settings, home: Path, clock: Clock, grant: GrantFile | None = None) -> Backend:
    """Open the backend that the settings choose; makes no request.

    Args:
        settings: they choose the backend.
        home: the state folder.
        clock: the source of time.
        grant: the file of the OAuth grant that the key is from, if there is one.

    Raises:
        StateError: the embedded backend's file in `home` cannot be used.
    """
    if settings.backend_url == EMBEDDED:
        embedded = EmbeddedHoncho(home / "memory.db", clock=clock, model=open_model(settings, clock))
        client = httpx.Client(transport=httpx.WSGITransport(app=embedded.app))

        def close() -> None:
            client.close()
            embedded.close()

        return Backend(_EMBEDDED_URL, "the embedded Honcho", None, client, abort=embedded.abort, close=close)
    transport = DeadlineTransport(settings.backend_url, clock=clock)
    client = httpx.Client(transport=transport, timeout=settings.timeout)
    abort = transport.abort
    if grant is not None:
        endpoint = HttpTokenEndpoint(settings.backend_url, clock)
        # The SDK's own header, with the key as it was at the start, is replaced in each request.
        client.auth = GrantAuth(Grant(grant, endpoint, clock, endpoint.closing))

        def abort() -> None:
            endpoint.abort()
            transport.abort()

    key = settings.api_key.get_secret_value() if settings.api_key else None
    return Backend(settings.backend_url, settings.shown_url, key, client, abort=abort, close=client.close)


def open_model(settings: Settings, clock: Clock) -> LanguageModel | None:
    """The language model that the embedded Honcho asks, if the settings name one; makes no request."""
    if settings.llm_base_url is None or settings.llm_model is None:
        return None
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    return LanguageModel(settings.llm_base_url, settings.llm_model, key, timeout=settings.timeout, clock=clock)
