"""The provider: the interface for Hermes Agent and for any Python program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from honcho_exec.clock import Clock, SystemClock
from honcho_exec.conversation.conversation import Conversation
from honcho_exec.conversation.tool_answers import error_answer
from honcho_exec.conversation.tool_arguments import schemas
from honcho_exec.errors import Disabled, HonchoExecError
from honcho_exec.model import Found, Hit, Receipt
from honcho_exec.net.preload import import_shared
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.provider.doctor import diagnose
from honcho_exec.provider.hooks import HostHooks
from honcho_exec.provider.lifecycle import HealthListener, Lifecycle
from honcho_exec.provider.sessions import HostSessions, working_directory
from honcho_exec.provider.status import Finding, Status
from honcho_exec.provider.writes import author, errors_in_future, key_of, turn_messages
from honcho_exec.recall.dialectic import Rewriter
from honcho_exec.runtime.metrics import Stats
from honcho_exec.runtime.offload import offload, offloaded
from honcho_exec.settings.identity import HostContext, named_ref
from honcho_exec.text.messages import as_messages
from honcho_exec.text.validation import (
    require_count,
    require_metadata,
    require_name,
    require_string,
    require_text,
    require_time,
)

__all__ = ["HonchoProvider"]

# Honcho's limit.
_MAX_HITS = 100


class HonchoProvider(HostHooks):
    """Long-term memory of one conversation, in Honcho.

    Usable as a context manager; otherwise call `initialize` first and `shutdown` last. Every method may be called from
    any thread, and may be interrupted by an exception that a signal handler raises; what was begun goes on. In a
    forked child every method answers that the provider cannot be used; the parent delivers its turns.

    Args:
        session_id: the session's name; by default the host's rules (`sessionStrategy`) name it.
        environ: where settings are read from; by default the process's environment.
        home: the state folder; by default the environment decides.
        profile: the host's profile, for calls before `initialize`.
        clock: the source of times and ids.
        on_health_change: called with the error when delivery begins to fail, and with None when it works again; runs
            on a thread of the provider, so it must return soon.
        query_rewriter: turns a user's message into a question to a memory; used if `queryRewrite` says so.

    Raises:
        InputError: `session_id` is not a string.
    """

    name = "honcho_exec"

    def __init__(
        self,
        session_id: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
        profile: str | None = None,
        clock: Clock | None = None,
        on_health_change: HealthListener | None = None,
        query_rewriter: Rewriter | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        name = "" if session_id is None else require_string(session_id, "session_id")
        self._lifecycle = Lifecycle(
            HostSessions(name, environ),
            environ,
            home=home,
            profile=profile,
            clock=clock or SystemClock(),
            on_health_change=on_health_change,
            rewrite=query_rewriter,
        )

    def __enter__(self) -> Self:
        self.initialize()
        if (trouble := self._lifecycle.error) is not None and not isinstance(trouble, Disabled):
            raise trouble
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    @offloaded
    def __repr__(self) -> str:
        return f"<HonchoProvider [{self._lifecycle}]>"

    def is_available(self) -> bool:
        """Return whether the SDK is installed, without importing it.

        Settings that cannot be used do not count: the tools answer what is wrong, where a person sees it.
        """
        return find_spec("honcho") is not None

    def initialize(
        self,
        session_id: str = "",
        *,
        platform: str = "",
        hermes_home: str | None = None,
        agent_context: str = "",
        agent_identity: str = "",
        user_id: str = "",
        user_id_alt: str = "",
        session_title: str = "",
        session_title_source: str = "",
        gateway_session_key: str = "",
        cwd: str = "",
        **_: object,
    ) -> None:
        """Begin a conversation; return at once, whatever the server does.

        Errors of the settings or of the state on disk are not raised: later calls answer them.

        Args:
            session_id: the host's id of this run; it names the session only if `sessionStrategy` says so.
            platform: where the conversation takes place; `cron` neither writes nor injects.
            hermes_home: the host's folder, for its settings file and the state.
            agent_context: `primary`; or `cron`, `flush`, `subagent`, `read`, which neither write nor inject.
            agent_identity: the host's profile, which names the workspace unless a setting does.
            user_id: the runtime user, first choice.
            user_id_alt: the runtime user, second choice.
            session_title: the session's title.
            session_title_source: `derived` or `llm` if a machine made the title, which then names no session.
            gateway_session_key: the chat that a gateway serves.
            cwd: the session's directory; by default the process's.
        """
        # On this thread: while a thread of ours imports, other threads of the caller could see half a module.
        import_shared()
        context = HostContext(
            session_id=session_id,
            session_title=session_title,
            session_title_source=session_title_source,
            gateway_session_key=gateway_session_key,
            user_id=user_id,
            user_id_alt=user_id_alt,
            platform=platform,
            agent_context=agent_context,
            cwd=cwd or working_directory(),
        )
        offload(partial(self._lifecycle.begin, context, hermes_home, agent_identity))

    @errors_in_future
    def sync_turn(
        self,
        user_content: object,
        assistant_content: object,
        *,
        session_id: str = "",
        messages: Sequence[Mapping[str, Any]] | None = None,  # noqa: ARG002 - the host's contract
    ) -> Future[Receipt]:
        """Store a turn durably before returning, and return the Future of its delivery.

        The Future is done when the turn is in Honcho. It fails with `StateError`, `Overloaded`, `Closed` or
        `InputError` if nothing was stored, and with a `RequestError` if delivery failed: for now (the turn is kept
        and delivered later) or for good (it is parked with the reason). `writeFrequency` says when turns are sent,
        and whether this waits for it.

        If another process locks the outbox for longer than 0.2 s, the turn is not durable yet: the Future's attribute
        `durable` is False until it is, and the Future fails with `StateError` if the provider closes first.

        Args:
            user_content: the user's words: text or OpenAI-style parts. Notices of the host are not stored.
            assistant_content: the assistant's answer; may be empty, as the user's words may.
            session_id: the host's id of the run; a turn that comes after a switch goes to its own run's session.
            messages: the host's transcript; not used.
        """
        # Not offloaded as a whole: turns are stored in the order of the calls.
        components = self._lifecycle.components or offload(self._lifecycle.begun)
        conversation = components.conversation
        ref = self._lifecycle.sessions.ref(session_id, conversation.ref)
        return conversation.turn(turn_messages(ref, user_content, assistant_content, components.settings), ref)

    @offloaded
    def remember(
        self,
        session: str,
        role: str,
        content: object,
        *,
        name: str | None = None,
        created_at: str | None = None,
        source_key: str | None = None,
        metadata: Mapping[str, str | int | float] | None = None,
    ) -> Future[Receipt]:
        """Store one message of any session durably, and return the Future of its delivery.

        Args:
            session: the session's name.
            role: `user` or `assistant`; names the peer, unless `name` does.
            content: the message.
            name: the peer who said it.
            created_at: when, ISO 8601; by default the server's time.
            source_key: identifies the message: the session stores one message with this key. Empty counts as None.
            metadata: stored with the message: strings, whole numbers of 64 bits, finite numbers, and booleans.

        Raises:
            InputError: an argument cannot be used; nothing was stored.
            HonchoExecError: memory is not in use, and why.
        """
        components = self._lifecycle.begun()
        ref = named_ref(components.conversation.ref, require_name(session, "session"))
        messages = as_messages(
            author(ref, role, name),
            require_text(content, "content"),
            components.settings,
            created_at=require_time(created_at),
            metadata=require_metadata(metadata),
            source_key=key_of(source_key),
        )
        return components.conversation.sync(messages, ref)

    def search(self, query: str, *, peer: str = "user", limit: int = 10) -> list[Hit]:
        """Return the hits of `find`, which see."""
        return list(self.find(query, peer=peer, limit=limit).hits)

    @offloaded
    def find(self, query: str, *, peer: str = "user", limit: int = 10) -> Found:
        """Search every session that the user and `peer` are members of, and report what was left out.

        Args:
            query: what is looked for.
            peer: `user`, `ai`, or an existing peer if nobody else talks to this assistant.
            limit: the most hits, from 1 to 100.

        Raises:
            InputError: an argument cannot be used.
            HonchoExecError: the search failed, and why.
        """
        tools, limit = self._lifecycle.begun().tools, require_count(limit, "limit", most=_MAX_HITS)
        return tools.find(require_string(query, "query"), peer=require_name(peer, "peer"), limit=limit)

    def get_tool_schemas(self) -> list[dict[str, Any]]:
        """Return the tools as function schemas; none if `recallMode` is `context` or memory is switched off."""
        return schemas() if self._lifecycle.offers_tools() else []

    @offloaded
    def handle_tool_call(self, tool_name: str, args: object = None, **_: object) -> str:
        """Answer a tool call with a JSON object: `result` or `conclusions`, or `error` with what to do about it.

        This waits at most the sync join timeout for the pending sync, then at most the tool's own deadline.
        """
        try:
            return self._lifecycle.begun().tools.call(tool_name, args)
        except HonchoExecError as error:
            return error_answer(str(tool_name)[:80], error)

    @offloaded
    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds until everything is delivered; return how many rows are pending then."""
        return self._lifecycle.begun().conversation.flush(timeout)

    @offloaded
    def status(self) -> Status:
        """Return the state of this provider, after a request to the server."""
        return self._lifecycle.status()

    @offloaded
    def doctor(self, seen: Status | None = None) -> tuple[Finding, ...]:
        """Return findings: those of the status (`seen`, or a new one), of versions, files and the server."""
        loaded = self._lifecycle.loaded
        return diagnose(seen or self._lifecycle.status(), self._conversation, loaded.settings if loaded else None)

    @offloaded
    def stats(self) -> Stats:
        """Return counts and times since this provider was created; makes no request."""
        return self._lifecycle.meter.snapshot()

    def outbox(self) -> AbstractContextManager[Outbox]:
        """Lend the outbox for inspection and repair, without delivering; `initialize` is not needed.

        Raises:
            ConfigurationError, StateError: the settings or the file cannot be used.
            Closed: the provider was created before a fork.
        """
        return self._lifecycle.outbox()

    @property
    def trouble(self) -> HonchoExecError | None:
        """Why memory does not work at the moment: bad settings, unusable state, or failing delivery."""
        return self._lifecycle.trouble

    @property
    def home(self) -> Path:
        """The state folder.

        Raises:
            ConfigurationError: the variable that names it cannot be used.
        """
        return self._lifecycle.home

    @offloaded
    def shutdown(self, timeout: float | None = None) -> int:
        """Deliver what is left within `timeout` seconds, by default the shutdown timeout, and close.

        Returns how many writes are kept on disk for later. May be called again, and from an exit hook.
        """
        return self._lifecycle.close(timeout)

    @property
    def _conversation(self) -> Conversation | None:
        return self._lifecycle.conversation
