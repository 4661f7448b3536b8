"""What is injected before a turn: fetched in the background on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from honcho_exec.errors import Closed, HonchoExecError, Rejected
from honcho_exec.lane import Lane
from honcho_exec.model import Context, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.text import clean, cut_at_word

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["Recall"]

_log = logging.getLogger(__name__)
_CHARS_PER_TOKEN = 4
_LEAST_SECTION = 80


class Recall:
    """Fetches the base context of a session in the background and hands it out, never waiting.

    A result belongs to the session it was fetched for and is dropped when the conversation has moved on.

    Args:
        connect: gives the API once the session is there, waiting for it if need be; called on the recall thread.
        abandon: a method that cuts its requests when the interpreter exits.
    """

    def __init__(
        self, connect: Callable[[], HonchoApi], settings: Settings, *, abandon: Callable[[], None] | None = None
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._lock = threading.Lock()
        self._thread = Lane("honcho-recall", abandon=abandon)
        self._running: Future[None] | None = None
        self._context: tuple[SessionRef, str] | None = None
        self._closed = False

    def fetch(self, ref: SessionRef, query: str) -> None:
        """Begin to fetch what is known for the turn after this one, unless that is under way."""
        with self._lock:
            if self._closed or (self._running is not None and not self._running.done()):
                return
            with suppress(Closed):
                self._running = self._thread.submit(lambda: self._fetch(ref, clean(query)))

    def take(self, ref: SessionRef) -> str:
        """The newest context of this session, within the token budget; empty when there is none (yet)."""
        with self._lock:
            held = self._context
        return held[1] if held is not None and held[0] == ref else ""

    def close(self) -> None:
        """Fetch no more; a request under way is cut by closing the backend."""
        with self._lock:
            self._closed = True
        self._thread.close(0.0)

    def _fetch(self, ref: SessionRef, query: str) -> None:
        try:
            text = self._base(self._connect(), ref, query)
        except (HonchoExecError, TimeoutError) as error:
            _log.info("nothing was recalled for the next turn: %s", error)
            return
        with self._lock:
            self._context = (ref, text)

    def _base(self, api: HonchoApi, ref: SessionRef, query: str) -> str:
        summary = api.session_context(ref.session).summary
        observer = ref.ai_peer if self._settings.observes(ai=True)[1] else ref.user_peer
        target = ref.user_peer if observer != ref.user_peer else None
        user = _known(lambda: api.peer_context(observer, target, query=query))
        assistant = _known(lambda: api.peer_context(ref.ai_peer, None))
        sections = {
            "Session summary": summary,
            "User representation": user.representation,
            "User card": "\n".join(user.card),
            "Assistant's own representation": assistant.representation,
            "Assistant's own card": "\n".join(assistant.card),
        }
        return self._within_budget({title: clean(text) for title, text in sections.items()})

    def _within_budget(self, sections: dict[str, str]) -> str:
        tokens = self._settings.context_tokens
        room = tokens * _CHARS_PER_TOKEN if tokens is not None else None
        parts: list[str] = []
        for title, text in sections.items():
            part = f"## {title}\n{text}"
            if not text:
                continue
            if room is not None:
                if room < min(len(part), _LEAST_SECTION):
                    break
                part = cut_at_word(part, room)
                room -= len(part) + 2
            parts.append(part)
        return "\n\n".join(parts)


def _known(request: Callable[[], Context]) -> Context:
    """The context of a peer; empty for a peer that Honcho does not know yet."""
    try:
        return request()
    except Rejected as error:
        if error.cause != "not_found":
            raise
        return Context()
