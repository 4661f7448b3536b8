"""What is injected before a turn: fetched in the background on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from honcho_exec.defuse import defuse_for_prompt, without_thinking
from honcho_exec.errors import Closed, HonchoExecError, Rejected
from honcho_exec.lane import Lane
from honcho_exec.model import Context, SessionRef
from honcho_exec.sections import CHARS_PER_TOKEN, Section, compose
from honcho_exec.settings import Settings
from honcho_exec.text import clean, storable

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["Recall"]

_log = logging.getLogger(__name__)


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
        self._generation = 0

    def fetch(self, ref: SessionRef, query: str) -> None:
        """Begin to fetch what is known for the turn after this one, unless that is under way."""
        with self._lock:
            if self._closed or (self._running is not None and not self._running.done()):
                return
            with suppress(Closed):
                generation = self._generation
                self._running = self._thread.submit(
                    lambda: self._fetch(ref, storable(query, mask=self._settings.redact), generation)
                )

    def take(self, ref: SessionRef) -> str:
        """The newest context of this session, within the token budget; empty when there is none (yet)."""
        with self._lock:
            held = self._context
        return held[1] if held is not None and held[0] == ref else ""

    def switch(self) -> None:
        """Another conversation begins: show nothing that was fetched, or is being fetched, for the one before."""
        with self._lock:
            self._generation += 1
            self._context = None

    def close(self) -> None:
        """Fetch no more; a request under way is cut by closing the backend."""
        with self._lock:
            self._closed = True
        self._thread.close(0.0)

    def _fetch(self, ref: SessionRef, query: str, generation: int) -> None:
        try:
            text = self._base(self._connect(), ref, query)
        except (HonchoExecError, TimeoutError) as error:
            _log.info("nothing was recalled for the next turn: %s", error)
            return
        with self._lock:
            if generation == self._generation:
                self._context = (ref, text)

    def _base(self, api: HonchoApi, ref: SessionRef, query: str) -> str:
        summary = api.session_context(ref.session).summary
        observer = ref.ai_peer if self._settings.observes(ai=True)[1] else ref.user_peer
        target = ref.user_peer if observer != ref.user_peer else None
        user = _known(lambda: api.peer_context(observer, target, query=query))
        assistant = _known(lambda: api.peer_context(ref.ai_peer, None))
        found = [
            ("Session summary", without_thinking(summary), 2),
            ("User representation", user.representation, 1),
            ("User card", "\n".join(user.card), 0),
            ("Assistant's own representation", assistant.representation, 3),
            ("Assistant's own card", "\n".join(assistant.card), 4),
        ]
        tokens = self._settings.context_tokens
        return compose(
            [Section(title, defuse_for_prompt(clean(text)), rank) for title, text, rank in found],
            tokens * CHARS_PER_TOKEN if tokens is not None else None,
        )


def _known(request: Callable[[], Context]) -> Context:
    """The context of a peer; empty for a peer that Honcho does not know yet."""
    try:
        return request()
    except Rejected as error:
        if error.cause != "not_found":
            raise
        return Context()
