"""Store the host's memory files from before Honcho was in use, once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from honcho_exec.client.session_store import SessionStore
from honcho_exec.delivery.futures import is_stored
from honcho_exec.model import Message, Receipt, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.names import safe_id
from honcho_exec.text.messages import as_messages

__all__ = ["store_memory_files"]

_log = logging.getLogger(__name__)

_USER, _ASSISTANT = "user", "assistant"
_FILES = (
    ("memories/MEMORY.md", _USER, "The assistant's notes from before this memory was in use"),
    ("memories/USER.md", _USER, "What the assistant noted of the user before this memory was in use"),
    ("memories/SOUL.md", _ASSISTANT, "Who the assistant is"),
    ("SOUL.md", _ASSISTANT, "Who the assistant is"),
)
"""A file's path in the host's folder, its peer and its title. The first file of a name counts."""


def store_memory_files(
    admit: Callable[[SessionRef, Sequence[Message]], Future[Receipt]],
    folder: Path,
    ref: SessionRef,
    settings: Settings,
    known: SessionStore,
) -> None:
    """Store the host's files, unless this machine has done so for this workspace and user.

    They go to a session of their own for each user. A file that this session has already is not written again: another
    machine may have stored it, or this one before it lost `known.db`.

    Args:
        admit: stores messages durably.
        folder: the host's folder.
        ref: the workspace and the peers.
        settings: how messages are made.
        known: where it is remembered.
    """
    job = f"memory files of {ref.user_peer}"
    if known.is_done(job):
        return
    try:
        messages = _read(folder, ref, settings)
    except OSError as error:
        _log.warning("the memory files in %s cannot be read (%s); it is tried again", folder, error.strerror)
        return
    if messages:
        session = safe_id(f"memory-files-{ref.user_peer}")
        future = admit(SessionRef(ref.workspace, session, ref.user_peer, ref.ai_peer), messages)
        if not is_stored(future):
            _log.warning("the memory files were not stored; it is tried again: %s", future.exception())
            return
    known.done(job)


def _read(folder: Path, ref: SessionRef, settings: Settings) -> list[Message]:
    messages: dict[str, list[Message]] = {}
    for location, owner, title in _FILES:
        path = folder / location
        if path.name in messages or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
            messages[path.name] = as_messages(
                ref.user_peer if owner == _USER else ref.ai_peer,
                f"{title} ({path.name}):\n\n{text}",
                settings,
                metadata={"source": "local_memory", "original_file": path.name},
                source_key=f"{path.name}/{digest}",
            )
    return [message for of_file in messages.values() for message in of_file]
