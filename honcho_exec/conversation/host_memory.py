"""Mirror the host's built-in memory, its files and its subagents to Honcho."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from honcho_exec.client.session_store import SessionStore
from honcho_exec.clock import Clock
from honcho_exec.conversation.conversation import Conversation
from honcho_exec.conversation.memory_files import store_memory_files
from honcho_exec.delivery.futures import done, is_stored
from honcho_exec.model import Receipt, Replacement, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import observer_of
from honcho_exec.text.cleaning import harmless, storable
from honcho_exec.text.messages import as_messages
from honcho_exec.text.validation import require_conclusion, require_text

__all__ = ["Mirror"]

_log = logging.getLogger(__name__)

# Between two entries of the host's files.
_SEPARATOR = "\n§\n"
_FILES = {"user": "USER.md", "memory": "MEMORY.md"}


class Mirror:
    """Stores writes of the built-in memory, the host's files, and subagents' results: durably and once, like turns.

    The host names an entry that it replaces or removes by any part of it that no other entry has. The whole entry is
    known from earlier writes, and from the host's files as they were at the start. A conclusion that merely looks like
    it stays: it may be Honcho's own, or another peer's.

    Args:
        home: the state folder.
        host_folder: the host's own folder; None if there is no host.
    """

    def __init__(
        self, conversation: Conversation, settings: Settings, home: Path, host_folder: Path | None, clock: Clock
    ) -> None:
        self._conversation = conversation
        self._settings = settings
        self._folder = host_folder
        destination = settings.destination(conversation.ref.workspace)
        self._known = SessionStore(home / "known.db", destination=destination, clock=clock)
        self._at_start = {target: self._file_entries(target) for target in _FILES}

    def begin(self) -> None:
        """Store the host's files, if the settings say so; on the lane, so that no caller waits."""
        settings, folder = self._settings, self._folder
        if settings.migrate_memory_files and settings.save_messages and folder is not None:
            admit, ref = self._conversation.delivery.turns.admit, self._conversation.ref
            self._conversation.lane.post(partial(store_memory_files, admit, folder, ref, settings, self._known))

    def write(self, ref: SessionRef, action: str, target: str, content: object, old_text: object) -> Future[Receipt]:
        """See `HonchoProvider.on_memory_write`; an unknown action changes nothing."""
        entry, part = (
            storable(require_text(text, name).strip(), mask=self._settings.redact)
            for text, name in ((content, "content"), (old_text, "old_text"))
        )
        observed = ref.user_peer if target == "user" else ref.ai_peer
        observer = observer_of(self._settings, ref, observed)
        new = require_conclusion(entry, "content") if action in {"add", "replace"} else ""
        old = ""
        if action in {"replace", "remove"} and part:
            old = self._entry(part, target, self._known.entries(observer, observed))
        if old == new:
            return done(Receipt(0))
        # An entry that was written before is written again: a person may have deleted it on the server, which is asked.
        future = self._conversation.delivery.turns.admit(ref, [Replacement(observer, observed, old, new)])
        if is_stored(future):
            self._known.replaced(observer, observed, old, new)
            for entries in self._at_start.values():
                entries.discard(old)
        return future

    def delegation(self, ref: SessionRef, task: object, result: object, child_session_id: str) -> Future[Receipt]:
        """See `HonchoProvider.on_delegation`."""
        settings = self._settings
        asked, answer = require_text(task, "task").strip(), require_text(result, "result").strip()
        if not (answer and settings.save_messages and settings.save_assistant_messages):
            return done(Receipt(0))
        text = f"A subagent was asked: {asked}\n\nIt answered: {answer}"
        key = f"delegation/{harmless(child_session_id)}" if child_session_id else None
        messages = as_messages(ref.ai_peer, text, settings, metadata={"source": "delegation"}, source_key=key)
        return self._conversation.sync(messages, ref)

    def _entry(self, part: str, target: str, written: list[str]) -> str:
        """Return the whole entry that has this part; the part itself if the entry is not known."""
        matching = {entry for entry in self._at_start.get(target, set()).union(written) if part in entry}
        for candidates in (matching - self._file_entries(target), matching):
            if len(candidates) == 1:
                return next(iter(candidates))
        if part not in matching:
            _log.info("an entry of the built-in memory was changed that is not known here as a conclusion")
        return part

    def _file_entries(self, target: str) -> set[str]:
        if self._folder is None or target not in _FILES:
            return set()
        try:
            text = (self._folder / "memories" / _FILES[target]).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return set()
        return {storable(entry.strip(), mask=self._settings.redact) for entry in text.split(_SEPARATOR)} - {""}
