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


class BuiltinMemory:
    """Translates writes of the host's built-in memory to writes for Honcho.

    The host names an entry that it replaces or removes by any part of it that no other entry has. The whole entry is
    known from earlier writes, and from the host's files as they were at the start. A conclusion that merely looks like
    it stays: it may be Honcho's own, or another peer's.

    Args:
        folder: the folder of the host's files; None if there is none.
    """

    def __init__(self, known: SessionStore, settings: Settings, folder: Path | None) -> None:
        self._known = known
        self._settings = settings
        self._folder = folder
        self._at_start = {target: self._file_entries(target) for target in _FILES}

    def replacement(self, ref: SessionRef, action: str, target: str, content: str, old_text: str) -> Replacement | None:
        """Return the write for Honcho; None if nothing changes.

        Args:
            ref: the peers.
            action: `add`, `replace` or `remove`; anything else changes nothing.
            target: `user`, or `memory` for the assistant's own notes.
            content: the entry from now on.
            old_text: a part of the entry as it was.

        Raises:
            InputError: the entry is too long for a conclusion.
        """
        observed = ref.user_peer if target == "user" else ref.ai_peer
        observer = observer_of(self._settings, ref, observed)
        new = require_conclusion(self._stored(content), "content") if action in {"add", "replace"} else ""
        old = ""
        if action in {"replace", "remove"} and (part := self._stored(old_text)):
            old = self._entry(part, target, self._known.entries(observer, observed))
        # An entry that was written before is written again: a person may have deleted it on the server, which is asked.
        return None if old == new else Replacement(observer, observed, old, new)

    def record(self, write: Replacement) -> None:
        """Remember a write that is durable."""
        self._known.replaced(write.observer, write.observed, write.old, write.new)
        for entries in self._at_start.values():
            entries.discard(write.old)

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
            text = (self._folder / _FILES[target]).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return set()
        return {self._stored(entry) for entry in text.split(_SEPARATOR)} - {""}

    def _stored(self, text: str) -> str:
        return storable(text.strip(), mask=self._settings.redact)


class Mirror:
    """Stores writes of the built-in memory, the host's files, and subagents' results: durably and once, like turns.

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
        self._builtin = BuiltinMemory(self._known, settings, host_folder and host_folder / "memories")

    def begin(self) -> None:
        """Store the host's files, if the settings say so; on the lane, so that no caller waits."""
        settings, folder = self._settings, self._folder
        if settings.migrate_memory_files and settings.save_messages and folder is not None:
            admit, ref = self._conversation.delivery.turns.admit, self._conversation.ref
            self._conversation.lane.post(partial(store_memory_files, admit, folder, ref, settings, self._known))

    def write(self, ref: SessionRef, action: str, target: str, content: object, old_text: object) -> Future[Receipt]:
        """See `HonchoProvider.on_memory_write`."""
        write = self._builtin.replacement(
            ref, action, target, require_text(content, "content"), require_text(old_text, "old_text")
        )
        if write is None:
            return done(Receipt(0))
        future = self._conversation.delivery.turns.admit(ref, [write])
        if is_stored(future):
            self._builtin.record(write)
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
