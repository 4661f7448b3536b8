"""What the host keeps and does beside the conversation, given to Honcho too."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path

from honcho_exec.builtin import BuiltinMemory
from honcho_exec.clock import Clock
from honcho_exec.conversation import Conversation
from honcho_exec.futures import done
from honcho_exec.known import Known
from honcho_exec.memory_files import give_memory_files
from honcho_exec.messages import as_messages
from honcho_exec.model import Receipt, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.text import harmless
from honcho_exec.turns import is_stored

__all__ = ["Mirror"]


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
            admit, ref = self._conversation.delivery.admit, self._conversation.ref
            self._conversation.lane.post(partial(give_memory_files, admit, folder, ref, settings, self._known))

    def write(self, ref: SessionRef, action: str, target: str, content: str, old_text: str) -> Future[Receipt]:
        """See `HonchoProvider.on_memory_write`."""
        write = self._builtin.replacement(ref, action, target, content, old_text)
        if write is None:
            return done(Receipt(0))
        future = self._conversation.delivery.admit(ref, [write])
        if is_stored(future):
            self._builtin.given(write)
        return future

    def delegation(self, ref: SessionRef, task: str, result: str, child_session_id: str) -> Future[Receipt]:
        """See `HonchoProvider.on_delegation`."""
        settings, asked, answer = self._settings, task.strip(), result.strip()
        if not (answer and settings.save_messages and settings.save_assistant_messages):
            return done(Receipt(0))
        text = f"A subagent was asked: {asked}\n\nIt answered: {answer}"
        key = f"delegation/{harmless(child_session_id)}" if child_session_id else None
        parts = as_messages(ref.ai_peer, text, settings, metadata={"source": "delegation"}, source_key=key)
        return self._conversation.sync(parts, ref)
