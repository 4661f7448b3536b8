"""What a provider consists of while a conversation goes on, put together and closed as one."""

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
from honcho_exec.recall.usage import Ledger
from honcho_exec.runtime.metrics import Meter
from honcho_exec.settings import LoadedSettings

__all__ = ["Parts", "put_together"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts.

    Attributes:
        recall: None where nothing is injected.
        mirror: None where nothing is written.
    """

    conversation: Conversation
    ledger: Ledger
    tools: Tools
    recall: Recall | None
    mirror: Mirror | None

    def close(self, timeout: float | None) -> int:
        """Deliver what is left, at most `timeout` seconds, give everything back; returns how many writes are kept."""
        with ExitStack() as steps:
            steps.callback(self.ledger.close)
            steps.callback(self.ledger.flush)
            if self.recall is not None:
                self.recall.close()
            try:
                return self.conversation.close(timeout)
            except HonchoExecError as error:
                _log.error("memory could not be closed in order: %s", error)
                return 0


def put_together(
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
    notice: Callable[[HonchoExecError | None], None],
) -> Parts:
    """Make the parts, and begin the conversation.

    Args:
        loaded: the settings, and where they are from.
        ref: where the conversation takes place.
        home: the state folder.
        clock: where time and ids come from.
        meter: what is counted and timed.
        writes: whether this run writes and injects at all.
        shared: whether other people may talk to the same assistant.
        host_folder: where the files of the host's own memory are; empty where there is no host.
        rewrite: makes of a user's message a question to a memory.
        notice: told when delivery begins to fail, and when it works again.

    Raises:
        StateError: the state on disk cannot be used.
    """
    settings = loaded.settings
    conversation = Conversation(
        settings, ref, home, clock, meter=meter, grant=GrantFile.of(loaded), writes=writes, on_health_change=notice
    )
    ledger = Ledger(home / "recall.db", destination=conversation.outbox.destination, clock=clock)
    recall = None
    if writes and settings.recall_mode != "tools":
        recall = Recall(
            conversation.connect,
            settings,
            ledger,
            clock,
            decided=conversation.decided,
            rewrite=rewrite,
            shared=shared,
            abandon=conversation.abandon,
        )

    @contextmanager
    def asking(ref: SessionRef) -> Iterator[None]:
        """Around a question that the model asks Honcho itself: it costs, and takes the dialectic's turn."""
        with ledger.llm_call(ref.session) if settings.has_model else nullcontext():
            yield
        if recall is not None:
            recall.asked_by_hand(ref)

    tools = Tools(conversation, settings, asking, shared=shared)
    conversation.begin()
    mirror = None
    if writes:
        mirror = Mirror(conversation, settings, home, Path(host_folder) if host_folder else None, clock)
        mirror.begin()
    return Parts(conversation, ledger, tools, recall, mirror)
