"""The provider: what Hermes Agent, or any Python program, talks to."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from honcho_exec.clock import Clock, SystemClock
from honcho_exec.conversation.conversation import Conversation, open_outbox
from honcho_exec.conversation.host_memory import Mirror
from honcho_exec.conversation.tool_arguments import schemas, system_prompt
from honcho_exec.conversation.tools import error_answer
from honcho_exec.delivery.futures import done, failed
from honcho_exec.errors import Closed, ConfigurationError, Disabled, HonchoExecError, InputError, StateError
from honcho_exec.forks import ADVICE, fork_count, on_fork_in_child
from honcho_exec.model import Found, Hit, Receipt, SessionRef
from honcho_exec.net.preload import import_shared
from honcho_exec.outbox.lease import Holder
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.provider.assembly import Parts, put_together
from honcho_exec.provider.checks import take
from honcho_exec.provider.doctor import examine
from honcho_exec.provider.status import Finding, Status
from honcho_exec.recall.dialectic import Rewriter
from honcho_exec.recall.recall import Recall
from honcho_exec.runtime.log import foreign
from honcho_exec.runtime.metrics import Meter, Stats
from honcho_exec.runtime.offload import begin_use, end_use, offload, offloaded
from honcho_exec.runtime.timer import weak_callback
from honcho_exec.settings import LoadedSettings, Settings, load, state_home, stated_home
from honcho_exec.settings.identity import HostContext, is_shared, named_ref, resolve, safe_id
from honcho_exec.text import validation as given
from honcho_exec.text.cleaning import harmless, plain_text
from honcho_exec.text.host_notices import spoken
from honcho_exec.text.messages import as_messages

__all__ = ["HonchoProvider"]

_log = logging.getLogger(__name__)

# State that could not be used is tried again, when it is needed, after so long (seconds).
_TRY_AGAIN = 30.0
# How many messages Honcho finds at most.
_MOST_HITS = 100
# How many of the host's ids are remembered: turns come late by one or two switches.
_REMEMBERED = 64

_providers: weakref.WeakSet[HonchoProvider] = weakref.WeakSet()
_inherited: list[Parts] = []


class HonchoProvider:
    """Long-term memory of one conversation, in Honcho.

    Usable as a context manager; otherwise call `initialize` before and `shutdown` after. Every method may be
    called from any thread, and may be interrupted there by an exception, such as a signal handler raises; what was
    begun goes on. In a forked child it cannot be used, and answers so; the parent delivers what it took.

    Args:
        session_id: the session's name; without one the host's rules (`sessionStrategy`) name it.
        environ: where settings are read from; the process's environment when None.
        home: the folder of the state on disk; decided by the environment when None.
        profile: the host's profile, for what is asked before `initialize` tells it.
        clock: where time and ids come from.
        notice: told, with the error, when delivery begins to fail, and with None when it works again; called on a
            thread of the provider's, which must not be held up.
        query_rewriter: makes of a user's message a question to a memory; used where `queryRewrite` says so.

    Raises:
        InputError: `session_id` is no string.
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
        notice: Callable[[HonchoExecError | None], None] | None = None,
        query_rewriter: Rewriter | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._context = HostContext(session="" if session_id is None else given.string(session_id, "session_id"))
        self._home = home
        self._profile = profile
        self._refs: dict[str, SessionRef] = {}
        self._clock = clock or SystemClock()
        self._notice = notice
        self._meter = Meter()
        self._lock = threading.Lock()
        self._loaded: LoadedSettings | None = None
        self._hermes_home: str | None = None
        self._parts: Parts | None = None
        self._rewrite = query_rewriter
        self._trouble: HonchoExecError | None = None
        self._tried_at = 0.0
        self._forks = fork_count()
        _providers.add(self)

    def __enter__(self) -> Self:
        self.initialize()
        if self._trouble is not None and not isinstance(self._trouble, Disabled):
            raise self._trouble
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    @offloaded
    def __repr__(self) -> str:
        conversation = self._conversation
        if conversation is None:
            return f"<HonchoProvider [{self._trouble or 'not initialized'}]>"
        counts = conversation.outbox.counts()
        breaker = conversation.breaker
        failing = " | failing" if conversation.delivery.health.failing else ""
        if breaker.state != "closed":
            failing = f" | breaker {breaker.state}" + (f" {breaker.remaining():.0f} s" if breaker.remaining() else "")
        state = f"{counts.pending} pending, {counts.in_flight} in flight, {counts.parked} parked{failing}"
        return f"<HonchoProvider [{state}]>"

    def is_available(self) -> bool:
        """Whether the provider can be used: the SDK is installed. Makes no request and imports no SDK.

        Settings that cannot be used do not make it unavailable: they are answered by the tools, where a person
        sees them, instead of by a memory that is silently missing.
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
        """Begin a conversation; returns at once, whatever the server does.

        The session is made by the lane's first job, and turns that are given meanwhile wait behind it. Trouble
        with the settings or the state on disk does not raise: every later call answers it.

        Args:
            session_id: the host's id of this run; names the session only where `sessionStrategy` says so.
            platform: where the conversation takes place; `cron` neither writes nor injects.
            hermes_home: the host's folder; settings file and state are looked for in it.
            agent_context: `primary`, or `cron`, `flush`, `subagent`, `read`, which neither write nor inject, and
                create neither session nor peers.
            agent_identity: the host's profile, which names the workspace unless a setting does.
            user_id: the runtime user, first choice.
            user_id_alt: the runtime user, second choice.
            session_title: the session's title.
            session_title_source: `derived` or `llm` if a machine made the title, which then names no session.
            gateway_session_key: the chat that a gateway serves.
            cwd: the session's directory; the process's when empty.
        """
        # On this thread: while a thread of ours imports, other threads of the caller could see half a module.
        import_shared()
        told = HostContext(
            session_id=session_id,
            session_title=session_title,
            session_title_source=session_title_source,
            gateway_session_key=gateway_session_key,
            user_id=user_id,
            user_id_alt=user_id_alt,
            platform=platform,
            agent_context=agent_context,
            cwd=cwd or _working_directory(),
        )
        self._initialize(told, hermes_home, agent_identity)

    def sync_turn(
        self,
        user_content: object,
        assistant_content: object,
        *,
        session_id: str = "",
        messages: Sequence[Mapping[str, Any]] | None = None,  # noqa: ARG002 - the host's contract
    ) -> Future[Receipt]:
        """Store a turn durably before returning, and return the Future of its delivery.

        The Future is settled when the turn is in Honcho. It fails with the error that stopped it: `StateError`,
        `Overloaded`, `Closed` or `InputError` when nothing was stored, a `RequestError` when delivery failed for
        now (the turn is kept and delivered later) or for good (it is parked with the reason). `writeFrequency` says
        when turns are sent, and whether this waits for it.

        While another process locks the outbox for longer than 0.2 s, the Future is returned before the turn is durable,
        and its attribute `durable` is False until it is; it fails with `StateError` if the provider closes first.

        Args:
            user_content: what the user said: text, or OpenAI-style parts; may be empty. What the host says in the
                user's name (see `machine_text`) is not stored.
            assistant_content: what the assistant answered; may be empty.
            session_id: the host's id of the run; a turn that comes after a switch goes to its own run's session.
            messages: the host's whole transcript; not used.
        """
        try:
            # This call alone is not offloaded: turns are stored in the order in which they are given.
            conversation = offload(self._opened) if self._parts is None else self._parts.conversation
            ref = self._refs.get(session_id, conversation.ref) if session_id else conversation.ref
            said = [(ref.user_peer, spoken(given.text(user_content, "user_content")))]
            if self._settings.save_assistant_messages:
                said.append((ref.ai_peer, given.text(assistant_content, "assistant_content")))
        except Disabled:
            return done(Receipt(0))
        except HonchoExecError as error:
            return failed(error)
        if not (self._settings.save_messages and self._context.writes):
            return done(Receipt(0))
        writes = [message for peer, text in said for message in as_messages(peer, text, self._settings)]
        return conversation.turn(writes, ref)

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

        A message whose `source_key` the session has already is not written again.

        Args:
            session: the session's name.
            role: `user` or `assistant`; says which peer it is, unless `name` does.
            content: what was said.
            name: who said it, as a peer of that name.
            created_at: when, ISO 8601; None lets the server's clock say.
            source_key: names where the message came from; an empty one names nothing.
            metadata: kept beside the message: strings, whole numbers of 64 bits, finite numbers, and booleans.

        Raises:
            InputError: an argument cannot be used; nothing was stored.
            HonchoExecError: memory is not in use, and why.
        """
        conversation = self._opened()
        ref = named_ref(conversation.ref, given.name(session, "session"))
        if role not in ("user", "assistant"):
            raise InputError("`role` must be user or assistant")
        peer = ref.user_peer if role == "user" else ref.ai_peer
        if name is not None and name != "":
            peer = safe_id(given.name(name, "name"))
        said_at, beside = given.moment(created_at), given.metadata(metadata)
        key = None if source_key is None else harmless(given.string(source_key, "source_key")) or None
        text = given.text(content, "content")
        parts = as_messages(peer, text, self._settings, created_at=said_at, metadata=beside, source_key=key)
        return conversation.sync(parts, ref)

    def search(self, query: str, *, peer: str = "user", limit: int = 10) -> list[Hit]:
        """Return the hits of `find`.

        Raises:
            InputError, HonchoExecError: see `find`.
        """
        return list(self.find(query, peer=peer, limit=limit).hits)

    @offloaded
    def find(self, query: str, *, peer: str = "user", limit: int = 10) -> Found:
        """Search every session that the user and `peer` are members of, and report what was left out.

        Args:
            query: what is looked for.
            peer: `user`, `ai` or, where nobody else talks to this assistant, a peer that exists.
            limit: how many at most: from 1 to 100, Honcho's limit.

        Raises:
            InputError: an argument cannot be used.
            HonchoExecError: they are not to be had, and why.
        """
        return self._begun().tools.find(
            given.string(query, "query"),
            peer=given.name(peer, "peer"),
            limit=given.count(limit, "limit", most=_MOST_HITS),
        )

    def get_tool_schemas(self) -> list[dict[str, Any]]:
        """The tools as function schemas; none where `recallMode` is `context` or memory is switched off."""
        try:
            settings = self._load().settings
        except HonchoExecError:
            # The tools are where a person learns what is wrong with the settings.
            return schemas()
        return schemas() if settings.enabled and settings.recall_mode != "context" else []

    @offloaded
    def handle_tool_call(self, tool_name: str, args: object = None, **_: object) -> str:
        """Answer a tool call with a JSON object: `result` or `conclusions`, or `error` with what to do about it.

        Waits at most the sync join timeout for the pending sync, and then at most the tool's own deadline.
        """
        try:
            return self._begun().tools.call(tool_name, args)
        except HonchoExecError as error:
            return error_answer(str(tool_name)[:80], error)

    @offloaded
    def system_prompt_block(self) -> str:
        """What the system prompt says of this memory: static text, so that prompts stay cacheable."""
        if self._present() is None or not self._context.writes:
            return ""
        return system_prompt(self._settings.recall_mode)

    @offloaded
    def on_turn_start(self, turn_number: int = 0, message: object = "", **_: object) -> None:  # noqa: ARG002 - the host's contract
        """Say that a turn begins, for which `prefetch` may be called or not; the cadences count turns."""
        if (recalling := self._recalling()) is not None:
            recalling[0].announce(recalling[1])

    @offloaded
    def prefetch(self, query: object, *, session_id: str = "") -> str:
        """What to put before this turn: fetched earlier, in the background.

        Only the first turn waits for it, at most `firstTurnBaseWait` and `firstTurnDialecticWait`; with `recallSync`
        every turn waits, at most the request timeout or 5 s.

        Args:
            query: what the user asks in this turn.
            session_id: the host's id of the run; nothing is recalled for another than the present one.
        """
        recalling = self._recalling(session_id)
        return "" if recalling is None else recalling[0].before(recalling[1], spoken(plain_text(query) or ""))

    @offloaded
    def queue_prefetch(self, query: object, *, session_id: str = "") -> None:
        """Begin to fetch, in the background, what is put before the next turn; `query` was asked in the last one."""
        if (recalling := self._recalling(session_id)) is not None:
            recalling[0].after(recalling[1], spoken(plain_text(query) or ""))

    @offloaded
    def on_memory_write(
        self, action: str, target: str, content: str, metadata: Mapping[str, object] | None = None
    ) -> Future[Receipt]:
        """Keep a write of the host's built-in memory as a conclusion, durably and once; see `sync_turn` for the Future.

        What is replaced or removed there is replaced or deleted in Honcho.

        Args:
            action: `add`, `replace` or `remove`.
            target: `user`, whom it is about, or `memory`: what the assistant notes for itself.
            content: the entry; empty when it is removed.
            metadata: the host's: `old_text`, a part of the entry as it was, and `session_id`.
        """
        said = metadata or {}
        return self._mirrored(
            str(said.get("session_id") or ""),
            lambda mirror, ref: mirror.write(
                ref, action, target, given.text(content, "content"), given.text(said.get("old_text") or "", "old_text")
            ),
        )

    @offloaded
    def on_delegation(self, task: str, result: str, *, child_session_id: str = "", **_: object) -> Future[Receipt]:
        """Store what a subagent was asked and what came of it, as said by the assistant; see `sync_turn`.

        Args:
            task: what was asked.
            result: what it answered; nothing is stored where it gave none.
            child_session_id: the host's id of the subagent's run, which is stored once.
        """
        return self._mirrored(
            "",
            lambda mirror, ref: mirror.delegation(
                ref, given.text(task, "task"), given.text(result, "result"), str(child_session_id or "")
            ),
        )

    @offloaded
    def on_pre_compress(self, messages: Sequence[Mapping[str, Any]] = ()) -> str:  # noqa: ARG002 - turns are enough
        """See that what is about to be summarized is on its way to Honcho; adds nothing to the summary.

        Every turn was stored when it was given, and what Honcho knows is put before the turns anyway.
        """
        if (parts := self._present()) is not None:
            parts.conversation.delivery.wake()
        return ""

    @offloaded
    def on_session_end(self, messages: Sequence[Mapping[str, Any]] = ()) -> None:  # noqa: ARG002 - turns are enough
        """Wait for the pending sync, at most the sync join timeout."""
        if (parts := self._present()) is not None:
            parts.conversation.join()

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
        """Go on under another id of the host; earlier turns stay in the session they were given in.

        What was recalled for the turns before it, or is being recalled, is not shown any more.

        Args:
            new_session_id: the host's id from now on.
            reset: a new conversation, which an earlier title does not name.
            rewound: the last turns were taken back; Honcho keeps what was said in them.
            session_title: the title under that id; None keeps the present one, unless it is a new conversation.
            session_title_source: who gave that title; see `initialize`.
        """
        parts = self._present()
        with self._lock:
            if parts is None or parts is not self._parts or self._loaded is None:
                return
            conversation, recall = parts.conversation, parts.recall
            context = self._context if not reset else replace(self._context, session_title="")
            if session_title is not None:
                source = session_title_source or ""
                context = replace(context, session_title=session_title, session_title_source=source)
            self._context = replace(context, session_id=new_session_id)
            ref = self._name(self._loaded.settings)
            moved = ref != conversation.ref
            if moved:
                conversation.switch(ref)
        if recall is not None and (moved or reset or rewound):
            recall.switch()

    @offloaded
    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds until everything is delivered; returns how many rows are still pending."""
        return self._opened().flush(timeout)

    @offloaded
    def status(self) -> Status:
        """How things are, after a real round trip to the server."""
        parts = self._present()
        try:
            home, trouble = self.home, self._trouble
        except ConfigurationError as error:
            home, trouble = stated_home(self._environ, self._hermes_home), self._trouble or error
        conversation, ledger = (parts.conversation, parts.ledger) if parts is not None else (None, None)
        return take(conversation, self._loaded, home, trouble, self._clock, ledger=ledger)

    @offloaded
    def doctor(self, seen: Status | None = None) -> tuple[Finding, ...]:
        """What `status` looks at and more: versions, the state folder and its files, the server's version.

        Args:
            seen: the status, where it was asked for just now.
        """
        seen = seen or self.status()
        return examine(seen, self._conversation, self._loaded.settings if self._loaded else None)

    @offloaded
    def stats(self) -> Stats:
        """What this provider has done since it was made; makes no request."""
        return self._meter.snapshot()

    @contextmanager
    def outbox(self) -> Iterator[Outbox]:
        """Lend the outbox to look into and to act on, without delivering anything; `initialize` is not needed.

        Raises:
            ConfigurationError, StateError: the settings or the file cannot be used.
            Closed: the provider was created before a fork.
        """
        if self._is_inherited:
            raise self._why_not()
        settings = self._load().settings
        holder = Holder(self.home / "holders")
        outbox = open_outbox(settings, self._name(settings), self.home, holder, self._clock)
        try:
            yield outbox
        finally:
            outbox.close()
            holder.close()

    @property
    def trouble(self) -> HonchoExecError | None:
        """What keeps memory from working just now: bad settings, state that cannot be used, failing delivery."""
        if (conversation := self._conversation) is None:
            return self._trouble
        health = conversation.delivery.health
        return health.error if health.failing else None

    @property
    def home(self) -> Path:
        """The folder of the state on disk.

        Raises:
            ConfigurationError: the variable that says where it is cannot be used.
        """
        return self._home or state_home(self._environ, self._hermes_home)

    @offloaded
    def shutdown(self, timeout: float | None = None) -> int:
        """Take nothing more and deliver what is left; returns how many writes are kept on disk for later.

        Harmless when called again, and from an exit hook.

        Args:
            timeout: how long it may take to deliver (seconds); the shutdown timeout when None.
        """
        with self._lock:
            parts, self._parts = self._parts, None
            if parts is None:
                return 0
            self._trouble = Closed("the provider is closed")
        try:
            left = parts.close(timeout)
        finally:
            end_use(self)
        if left:
            _log.warning("%d writes are kept in the outbox and will be delivered later", left)
        return left

    @property
    def _settings(self) -> Settings:
        return self._load().settings

    def _load(self) -> LoadedSettings:
        if self._loaded is None:
            self._loaded = load(self._environ, hermes_home=self._hermes_home, profile=self._profile)
        return self._loaded

    def _begin(self, *, profile: str | None) -> None:
        loaded = self._loaded = load(self._environ, hermes_home=self._hermes_home, profile=profile)
        for warning in loaded.warnings:
            _log.warning("%s", warning)
        if not loaded.settings.enabled:
            raise Disabled("Honcho memory is switched off (HONCHO_ENABLED, or `enabled` in honcho.json)")
        ref = self._name(loaded.settings)
        self._parts = put_together(
            loaded,
            ref,
            self.home,
            self._clock,
            self._meter,
            writes=self._context.writes,
            shared=is_shared(loaded.settings, self._context),
            host_folder=self._hermes_home or self._environ.get("HERMES_HOME", "").strip(),
            rewrite=self._rewrite,
            notice=self._tell,
        )
        begin_use(self, weak_callback(self._abandon))

    def _name(self, settings: Settings) -> SessionRef:
        """Name the present conversation, and remember it under the host's id for turns that come late."""
        ref = resolve(settings, self._context, self._environ)
        self._refs[self._context.session_id] = ref
        while len(self._refs) > _REMEMBERED:
            del self._refs[next(iter(self._refs))]
        return ref

    @property
    def _conversation(self) -> Conversation | None:
        parts = self._parts
        return None if parts is None else parts.conversation

    def _present(self) -> Parts | None:
        """The parts; if the state could not be used, this tries again now and then."""
        if self._parts is None and self._may_begin():
            with self._lock:
                if self._parts is None and self._may_begin():
                    self._try_to_begin()
        return self._parts

    def _may_begin(self) -> bool:
        # A full disk or a locked file may be over: a host runs for weeks.
        due = self._clock.monotonic() >= self._tried_at + _TRY_AGAIN
        return isinstance(self._trouble, StateError) and due

    @offloaded
    def _initialize(self, told: HostContext, hermes_home: str | None, agent_identity: str) -> None:
        with self._lock:
            if self._parts is not None or self._is_inherited:
                return
            self._hermes_home = hermes_home
            self._profile = agent_identity or self._profile
            self._context = replace(told, session=self._context.session)
            self._try_to_begin()

    def _try_to_begin(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            self._begin(profile=self._profile)
            self._trouble = None
        except HonchoExecError as error:
            self._trouble = error
            level = logging.INFO if isinstance(error, Disabled) else logging.ERROR
            _log.log(level, "memory is not in use: %s", error)

    def _recalling(self, session_id: str = "") -> tuple[Recall, SessionRef] | None:
        """Who recalls and for which session; None when nothing is recalled, or not for this run of the host."""
        parts = self._present()
        if parts is None or parts.recall is None:
            return None
        ref = parts.conversation.ref
        if session_id and self._refs.get(session_id, ref) != ref:
            return None
        return parts.recall, ref

    def _begun(self) -> Parts:
        parts = self._present()
        if parts is None:
            raise self._why_not()
        return parts

    def _opened(self) -> Conversation:
        return self._begun().conversation

    def _leave_parent(self) -> None:
        """Give up, in a forked child, what is the parent's: threads, connections, Futures."""
        self._lock, self._meter = threading.Lock(), Meter()
        self._trouble = Closed(ADVICE)
        if self._parts is not None:
            # Kept, so that nothing of it is closed: the files and sockets are the parent's too.
            _inherited.append(self._parts)
            self._parts = None

    @property
    def _is_inherited(self) -> bool:
        return self._forks != fork_count()

    def _abandon(self) -> None:
        if (conversation := self._conversation) is not None:
            conversation.abandon()

    def _tell(self, error: HonchoExecError | None) -> None:
        if (notice := self._notice) is not None:
            foreign(_log, "the notice callback", lambda: notice(error), None)

    def _mirrored(self, session_id: str, give: Callable[[Mirror, SessionRef], Future[Receipt]]) -> Future[Receipt]:
        try:
            parts = self._begun()
            present = parts.conversation.ref
            ref = self._refs.get(session_id, present) if session_id else present
            return give(parts.mirror, ref) if parts.mirror is not None else done(Receipt(0))
        except Disabled:
            return done(Receipt(0))
        except HonchoExecError as error:
            return failed(error)

    def _why_not(self) -> HonchoExecError:
        return self._trouble or Closed("the provider is not initialized; call initialize() or use `with`")


@on_fork_in_child
def _after_fork() -> None:
    for provider in list(_providers):
        provider._leave_parent()  # noqa: SLF001 - of this module


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        # It was removed under us.
        return ""
