"""What the host keeps and does beside the conversation, given to Honcho too."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from honcho_exec.client.session_store import Known
from honcho_exec.clock import Clock
from honcho_exec.conversation.conversation import Conversation
from honcho_exec.conversation.memory_files import give_memory_files
from honcho_exec.delivery.futures import done, is_stored
from honcho_exec.model import Receipt, Replacement, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import observer_of
from honcho_exec.text import validation as given
from honcho_exec.text.cleaning import harmless, storable
from honcho_exec.text.messages import as_messages

__all__ = ["BuiltinMemory", "Mirror"]

_log = logging.getLogger(__name__)

_SEPARATOR = "\n§\n"
"""What the host puts between two entries of its files."""

_FILES = {"user": "USER.md", "memory": "MEMORY.md"}


class BuiltinMemory:
    """What the host writes to its built-in memory, as writes to Honcho.

    The host names an entry that it replaces or removes by any part of it that no other entry has. Which one that was
    is known from what was mirrored before, and from what its files held at the start. A conclusion that only looks
    like it stays: it may be Honcho's own, or said by somebody else.

    Args:
        folder: where the host keeps its files; None where there are none.
    """

    def __init__(self, known: Known, settings: Settings, folder: Path | None) -> None:
        self._known = known
        self._settings = settings
        self._folder = folder
        self._before = {target: self._held(target) for target in _FILES}

    def replacement(self, ref: SessionRef, action: str, target: str, content: str, old_text: str) -> Replacement | None:
        """What a write of the host means for Honcho; None where it means nothing.

        Args:
            ref: whose memory it is.
            action: `add`, `replace` or `remove`; anything else changes nothing.
            target: `user`, or `memory`, which is what the assistant notes for itself.
            content: the entry as it is from now on.
            old_text: a part of the entry as it was.

        Raises:
            InputError: the entry is too long for a conclusion.
        """
        observed = ref.user_peer if target == "user" else ref.ai_peer
        observer = observer_of(self._settings, ref, observed)
        new = given.conclusion(self._stored(content), "content") if action in {"add", "replace"} else ""
        old = ""
        if action in {"replace", "remove"} and (part := self._stored(old_text)):
            old = self._entry(part, self._known.entries(observer, observed), target)
        # What was given before is given again: the server is looked at first, where a person may have deleted it.
        return None if old == new else Replacement(observer, observed, old, new)

    def given(self, write: Replacement) -> None:
        """Remember a write that is durable."""
        self._known.replaced(write.observer, write.observed, write.old, write.new)
        for entries in self._before.values():
            entries.discard(write.old)

    def _entry(self, part: str, given: list[str], target: str) -> str:
        """The whole entry that had this part; the part itself, where that is not known."""
        entries = set(given) | self._before.get(target, set())
        matching = {entry for entry in entries if part in entry}
        gone = matching - self._held(target)
        for found in (gone, matching):
            if len(found) == 1:
                return next(iter(found))
        if part not in matching:
            _log.info("an entry of the built-in memory was changed that is not known here as a conclusion")
        return part

    def _held(self, target: str) -> set[str]:
        """The entries that the host's file has now."""
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
    """Writes of the host's built-in memory, its files, and what subagents found; durable and once, like turns.

    Args:
        home: the state folder.
        host_folder: the host's own folder; None where there is none.
    """

    def __init__(
        self, conversation: Conversation, settings: Settings, home: Path, host_folder: Path | None, clock: Clock
    ) -> None:
        self._conversation = conversation
        self._settings = settings
        self._folder = host_folder
        destination = settings.destination(conversation.ref.workspace)
        self._known = Known(home / "known.db", destination=destination, clock=clock)
        self._builtin = BuiltinMemory(self._known, settings, host_folder and host_folder / "memories")

    def begin(self) -> None:
        """Give the host's files from before, where that is wanted; on the lane, so that nobody waits for it."""
        settings, folder = self._settings, self._folder
        if settings.migrate_memory_files and settings.save_messages and folder is not None:
            admit, ref = self._conversation.delivery.turns.admit, self._conversation.ref
            self._conversation.lane.post(partial(give_memory_files, admit, folder, ref, settings, self._known))

    def write(self, ref: SessionRef, action: str, target: str, content: object, old_text: object) -> Future[Receipt]:
        """See `HonchoProvider.on_memory_write`."""
        write = self._builtin.replacement(
            ref, action, target, given.text(content, "content"), given.text(old_text, "old_text")
        )
        if write is None:
            return done(Receipt(0))
        future = self._conversation.delivery.turns.admit(ref, [write])
        if is_stored(future):
            self._builtin.given(write)
        return future

    def delegation(self, ref: SessionRef, task: object, result: object, child_session_id: str) -> Future[Receipt]:
        """See `HonchoProvider.on_delegation`."""
        settings = self._settings
        asked, answer = given.text(task, "task").strip(), given.text(result, "result").strip()
        if not (answer and settings.save_messages and settings.save_assistant_messages):
            return done(Receipt(0))
        text = f"A subagent was asked: {asked}\n\nIt answered: {answer}"
        key = f"delegation/{harmless(child_session_id)}" if child_session_id else None
        parts = as_messages(ref.ai_peer, text, settings, metadata={"source": "delegation"}, source_key=key)
        return self._conversation.sync(parts, ref)
