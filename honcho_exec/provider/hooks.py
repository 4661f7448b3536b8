"""The calls of an agent host around its turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from honcho_exec.conversation.tool_arguments import system_prompt
from honcho_exec.model import Receipt
from honcho_exec.provider.lifecycle import Lifecycle
from honcho_exec.provider.writes import errors_in_future
from honcho_exec.runtime.offload import offloaded
from honcho_exec.text.cleaning import plain_text
from honcho_exec.text.host_notices import spoken

__all__ = ["HostHooks"]


class HostHooks:
    """The calls of a host next to `sync_turn` and the tools."""

    _lifecycle: Lifecycle

    @offloaded
    def system_prompt_block(self) -> str:
        """Return what the system prompt says of this memory: static text, so that prompts stay cacheable."""
        components = self._lifecycle.present()
        return "" if components is None or components.mirror is None else system_prompt(components.settings.recall_mode)

    @offloaded
    def on_turn_start(self, turn_number: int = 0, message: object = "", **_: object) -> None:  # noqa: ARG002 - the host's contract
        """Count a turn that begins, with or without a following `prefetch`."""
        if (recalling := self._lifecycle.recalling()) is not None:
            recalling[0].announce(recalling[1])

    @offloaded
    def prefetch(self, query: object, *, session_id: str = "") -> str:
        """Return what to put before this turn, fetched earlier in the background.

        Only the first turn waits for it, at most `firstTurnBaseWait` and `firstTurnDialecticWait`; with `recallSync`
        every turn waits, at most the request timeout or 5 s. `session_id` is the host's id of the run; nothing is
        recalled for an earlier run.
        """
        recalling = self._lifecycle.recalling(session_id)
        return "" if recalling is None else recalling[0].prefetch(recalling[1], spoken(plain_text(query) or ""))

    @offloaded
    def queue_prefetch(self, query: object, *, session_id: str = "") -> None:
        """Begin to fetch what is put before the next turn; `query` is the last turn's."""
        if (recalling := self._lifecycle.recalling(session_id)) is not None:
            recalling[0].queue_prefetch(recalling[1], spoken(plain_text(query) or ""))

    @offloaded
    @errors_in_future
    def on_memory_write(
        self, action: str, target: str, content: str, metadata: Mapping[str, object] | None = None
    ) -> Future[Receipt]:
        """Store a write of the host's built-in memory as a conclusion; see `sync_turn` for the Future.

        Args:
            action: `add`; or `replace` or `remove`, which replace or delete the conclusion in Honcho.
            target: `user`, or `memory` for the assistant's own notes.
            content: the entry; empty if it is removed.
            metadata: the host's: `old_text`, a part of the entry as it was, and `session_id`.
        """
        given = metadata or {}
        ref = self._lifecycle.ref(str(given.get("session_id") or ""))
        return self._lifecycle.mirror().write(ref, action, target, content, given.get("old_text") or "")

    @offloaded
    @errors_in_future
    def on_delegation(self, task: str, result: str, *, child_session_id: str = "", **_: object) -> Future[Receipt]:
        """Store a subagent's task and result as said by the assistant; see `sync_turn` for the Future.

        Args:
            task: the task.
            result: the result; if it is empty, nothing is stored.
            child_session_id: the host's id of the subagent's run, which is stored once.
        """
        ref = self._lifecycle.ref("")
        return self._lifecycle.mirror().delegation(ref, task, result, str(child_session_id or ""))

    @offloaded
    def on_pre_compress(self, messages: Sequence[Mapping[str, Any]] = ()) -> str:  # noqa: ARG002 - turns are enough
        """Send pending turns before the host summarizes them; add nothing to the summary."""
        if (components := self._lifecycle.present()) is not None:
            components.conversation.delivery.wake()
        return ""

    @offloaded
    def on_session_end(self, messages: Sequence[Mapping[str, Any]] = ()) -> None:  # noqa: ARG002 - turns are enough
        """Wait for the pending sync, at most the sync join timeout."""
        if (components := self._lifecycle.present()) is not None:
            components.conversation.join()

    @offloaded
    def on_session_switch(
        self,
        new_session_id: str,
        *,
        reset: bool = False,
        rewound: bool = False,
        session_title: str | None = None,
        session_title_source: str | None = None,
        **_: object,
    ) -> None:
        """Go on under another id of the host; earlier turns stay in their session, and their recall is dropped.

        Args:
            new_session_id: the host's id from now on.
            reset: whether this is a new conversation, which an earlier title does not name.
            rewound: whether the last turns were taken back; Honcho keeps them.
            session_title: the title under that id; None keeps the present one, unless it is a new conversation.
            session_title_source: who gave that title; see `initialize`.
        """
        self._lifecycle.switch(
            new_session_id, reset=reset, rewound=rewound, title=session_title, title_source=session_title_source
        )
