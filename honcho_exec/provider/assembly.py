"""Assemble the components of a conversation, and close them together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from honcho_exec.clock import Clock
from honcho_exec.conversation.conversation import Conversation
from honcho_exec.conversation.host_memory import Mirror
from honcho_exec.conversation.tools import Tools
from honcho_exec.errors import HonchoExecError
from honcho_exec.model import SessionRef
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.recall.dialectic import Rewriter
from honcho_exec.recall.recall import Recall
from honcho_exec.recall.usage import RecallUsage
from honcho_exec.runtime.metrics import Meter
from honcho_exec.settings import LoadedSettings, Settings

__all__ = ["Components", "assemble"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a conversation.

    Attributes:
        recall: None if nothing is injected.
        mirror: None if nothing is written.
    """

    settings: Settings
    conversation: Conversation
    usage: RecallUsage
    tools: Tools
    recall: Recall | None
    mirror: Mirror | None

    def close(self, timeout: float | None) -> int:
        """Deliver within `timeout` seconds and close everything; return how many writes are kept for later."""
        with ExitStack() as steps:
            steps.callback(self.usage.close)
            steps.callback(self.usage.flush)
            if self.recall is not None:
                self.recall.close()
            try:
                return self.conversation.close(timeout)
            except HonchoExecError as error:
                _log.error("memory could not be closed in order: %s", error)
                return 0


def assemble(
    loaded: LoadedSettings,
    ref: SessionRef,
    home: Path,
    clock: Clock,
    meter: Meter,
    *,
    writes: bool,
    shared: bool,
    host_folder: str,
    rewrite: Rewriter | None,
    on_health_change: Callable[[HonchoExecError | None], None],
) -> Components:
    """Create the components, and begin the conversation.

    `home` is the state folder. With `writes` False nothing is written or injected; with `shared` other people may talk
    to the same assistant. `host_folder` has the host's own memory files; it is empty if there is no host.

    Raises:
        StateError: the state on disk cannot be used.
    """
    settings = loaded.settings
    conversation = Conversation(
        settings,
        ref,
        home,
        clock,
        meter=meter,
        grant=GrantFile.of(loaded),
        writes=writes,
        on_health_change=on_health_change,
    )
    usage = RecallUsage(home / "recall.db", destination=conversation.outbox.destination, clock=clock)
    recall = None
    if writes and settings.recall_mode != "tools":
        recall = Recall(
            conversation.connect,
            settings,
            usage,
            clock,
            decided=conversation.decided,
            rewrite=rewrite,
            shared=shared,
            abandon=conversation.abandon,
        )

    @contextmanager
    def asking(ref: SessionRef) -> Iterator[None]:
        """Count a question of the model to Honcho, which replaces the next dialectic question."""
        with usage.llm_call(ref.session) if settings.has_model else nullcontext():
            yield
        if recall is not None:
            recall.note_question(ref)

    tools = Tools(conversation, settings, asking, shared=shared)
    conversation.begin()
    mirror = None
    if writes:
        mirror = Mirror(conversation, settings, home, Path(host_folder) if host_folder else None, clock)
        mirror.begin()
    return Components(settings, conversation, usage, tools, recall, mirror)
