"""Files of the host's memory from before Honcho was in use: given to Honcho once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from honcho_exec.client.session_store import Known
from honcho_exec.delivery.futures import is_stored
from honcho_exec.model import Message, Receipt, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import safe_id
from honcho_exec.text.messages import as_messages

__all__ = ["give_memory_files"]

_log = logging.getLogger(__name__)

_USER, _ASSISTANT = "user", "assistant"
_FILES = (
    ("memories/MEMORY.md", _USER, "The assistant's notes from before this memory was in use"),
    ("memories/USER.md", _USER, "What the assistant noted of the user before this memory was in use"),
    ("memories/SOUL.md", _ASSISTANT, "Who the assistant is"),
    ("SOUL.md", _ASSISTANT, "Who the assistant is"),
)
"""Where a file is in the host's folder, whose it is, and what it is. The first of a name counts."""


def give_memory_files(
    admit: Callable[[SessionRef, Sequence[Message]], Future[Receipt]],
    folder: Path,
    ref: SessionRef,
    settings: Settings,
    known: Known,
) -> None:
    """Give the files of the host's folder to Honcho, unless this machine has done so for this workspace and user.

    They go to a session of their own, one for each user, whatever is talked about: there a file is not written again
    that is there already, given by another machine or before this one forgot.

    Args:
        admit: stores messages durably.
        folder: the host's folder.
        ref: the workspace and the user.
        settings: how messages are made.
        known: where it is remembered.
    """
    job = f"memory files of {ref.user_peer}"
    if known.is_done(job):
        return
    try:
        found = _read(folder, ref, settings)
    except OSError as error:
        _log.warning("the memory files in %s cannot be read (%s); it is tried again", folder, error.strerror)
        return
    if found:
        session = safe_id(f"memory-files-{ref.user_peer}")
        future = admit(SessionRef(ref.workspace, session, ref.user_peer, ref.ai_peer), found)
        if not is_stored(future):
            _log.warning("the memory files were not stored; it is tried again: %s", future.exception())
            return
    known.done(job)


def _read(folder: Path, ref: SessionRef, settings: Settings) -> list[Message]:
    found: dict[str, list[Message]] = {}
    for place, whose, title in _FILES:
        path = folder / place
        if path.name in found or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
            found[path.name] = as_messages(
                ref.user_peer if whose == _USER else ref.ai_peer,
                f"{title} ({path.name}):\n\n{text}",
                settings,
                metadata={"source": "local_memory", "original_file": path.name},
                source_key=f"{path.name}/{digest}",
            )
    return [message for parts in found.values() for message in parts]
