"""The shell that Hermes Agent talks to: it translates between the host's contract and the provider, nothing else."""

from __future__ import annotations

import logging
import os
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from agent.memory_provider import MemoryProvider
from hermes_constants import get_hermes_home

from honcho_exec.conversation.tool_answers import error_answer
from honcho_exec.delivery.futures import failed
from honcho_exec.errors import Disabled, HonchoExecError, RequestError
from honcho_exec.model import Receipt
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.runtime.log import log_unexpected
from honcho_exec.settings import load, variables

__all__ = ["HonchoExecMemoryProvider"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STATED = (
    "platform",
    "agent_context",
    "agent_identity",
    "user_id",
    "user_id_alt",
    "session_title",
    "session_title_source",
    "gateway_session_key",
    "cwd",
)
"""What `initialize` takes of all that the host says."""

_FIELDS: tuple[dict[str, Any], ...] = (
    {
        "key": "api_key",
        "description": "Honcho API key (none is needed for a local server, or with no server at all)",
        "secret": True,
        "env_var": variables("api_key")[0],
        "url": "https://app.honcho.dev",
    },
    {
        "key": "base_url",
        "description": "URL of a Honcho server (empty: Honcho's cloud with a key, else a local memory on this machine)",
        "env_var": variables("base_url")[0],
    },
)


class _UnexpectedError(HonchoExecError):
    cause = "internal"


class HonchoExecMemoryProvider(MemoryProvider):
    """`HonchoProvider` under the contract of hermes-agent's `MemoryProvider`.

    No exception reaches the host where it could not tell what to do with it: what was not foreseen is logged, without
    the exception's text, which may quote what was said, and answered as if there were no memory.
    """

    name = "honcho_exec"

    def __init__(self) -> None:
        self._environ = _environ()
        self._warning: object = None
        self._provider = HonchoProvider(
            environ=self._environ, profile=_profile(), on_health_change=self._health_changed, query_rewriter=_rewritten
        )

    def __repr__(self) -> str:
        return f"<HonchoExecMemoryProvider {self._provider!r}>"

    def is_available(self) -> bool:
        """Whether the provider can be used; makes no request and imports no SDK."""
        return self._safely("is_available", self._provider.is_available, lambda _: False)

    def initialize(self, session_id: str, **kwargs: Any) -> None:
        """Begin a conversation; returns at once, whatever the server does."""
        stated = {name: str(kwargs[name]) for name in _STATED if kwargs.get(name) is not None}
        home = str(kwargs.get("hermes_home") or self._environ["HERMES_HOME"])
        self._warning = kwargs.get("warning_callback")
        self._safely(
            "initialize", lambda: self._provider.initialize(session_id, hermes_home=home, **stated), lambda _: None
        )
        self._safely("warning_callback", self._warn, lambda _: None)

    def system_prompt_block(self) -> str:
        """What the system prompt says of this memory: static text."""
        return self._safely("system_prompt_block", self._provider.system_prompt_block, lambda _: "")

    def on_turn_start(self, turn_number: int, message: str, **kwargs: Any) -> None:
        """A turn begins."""
        self._safely(
            "on_turn_start", lambda: self._provider.on_turn_start(turn_number, message, **kwargs), lambda _: None
        )

    def prefetch(self, query: str, *, session_id: str = "") -> str:
        """What to put before this turn; waited for as the settings say, by default in the first turn only."""
        return self._safely("prefetch", lambda: self._provider.prefetch(query, session_id=session_id), lambda _: "")

    def queue_prefetch(self, query: str, *, session_id: str = "") -> None:
        """Begin to fetch what is put before the next turn."""
        self._safely(
            "queue_prefetch", lambda: self._provider.queue_prefetch(query, session_id=session_id), lambda _: None
        )

    def sync_turn(
        self,
        user_content: object,
        assistant_content: object,
        *,
        session_id: str = "",
        messages: Sequence[Mapping[str, Any]] | None = None,
    ) -> Future[Receipt]:
        """Store a turn durably before returning; the Future is that of its delivery, and the host ignores it."""
        future = self._safely(
            "sync_turn",
            lambda: self._provider.sync_turn(user_content, assistant_content, session_id=session_id, messages=messages),
            failed,
        )
        return _told("a turn", future)

    def get_tool_schemas(self) -> list[dict[str, Any]]:
        """The tools as function schemas; the host asks before `initialize` as well."""
        return self._safely("get_tool_schemas", self._provider.get_tool_schemas, lambda _: [])

    def handle_tool_call(self, tool_name: str, args: object = None, **kwargs: Any) -> str:
        """Answer a tool call with a JSON object."""
        return self._safely(
            tool_name,
            lambda: self._provider.handle_tool_call(tool_name, args, **kwargs),
            lambda error: error_answer(str(tool_name)[:80], error),
        )

    def on_session_end(self, messages: Sequence[Mapping[str, Any]] = ()) -> None:
        """Wait for the pending sync, at most the sync join timeout."""
        self._safely("on_session_end", lambda: self._provider.on_session_end(messages), lambda _: None)

    def on_memory_write(
        self, action: str, target: str, content: str, metadata: Mapping[str, Any] | None = None
    ) -> Future[Receipt]:
        """Keep a write of the built-in memory as a conclusion; the host ignores the Future."""
        future = self._safely(
            "on_memory_write",
            lambda: self._provider.on_memory_write(action, target, content, metadata=metadata),
            failed,
        )
        return _told("a write of the built-in memory", future)

    def on_delegation(self, task: str, result: str, *, child_session_id: str = "", **kwargs: Any) -> Future[Receipt]:
        """Store what a subagent was asked and what came of it; the host ignores the Future."""
        future = self._safely(
            "on_delegation",
            lambda: self._provider.on_delegation(task, result, child_session_id=child_session_id, **kwargs),
            failed,
        )
        return _told("a subagent's answer", future)

    def on_pre_compress(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """See that what is about to be summarized is on its way; adds nothing to the summary."""
        return self._safely("on_pre_compress", lambda: self._provider.on_pre_compress(messages), lambda _: "")

    def on_session_switch(self, new_session_id: str, **kwargs: Any) -> None:
        """Go on under another id of the host, and under the title that a person gave it, if one did.

        A conversation that was compressed goes on under a title that the host numbered: it keeps the person's.
        """
        if kwargs.get("reason") != "compression" and not kwargs.get("rewound"):
            kwargs |= self._safely("the title", lambda: _title(new_session_id), lambda _: {})
        self._safely(
            "on_session_switch", lambda: self._provider.on_session_switch(new_session_id, **kwargs), lambda _: None
        )

    def shutdown(self) -> None:
        """Deliver what is left, at most the shutdown timeout; the rest is kept on disk."""
        self._safely("shutdown", self._provider.shutdown, lambda _: None)

    def get_config_schema(self) -> list[dict[str, Any]]:
        """What `hermes memory setup` and the dashboard ask for; everything else is read from Honcho's own file."""
        return [dict(field) for field in _FIELDS]

    def save_config(self, values: Mapping[str, Any], hermes_home: str) -> None:  # noqa: ARG002 - the host knows it too
        """Keep what was asked for beside the key, in the host's `.env`; an empty value changes nothing.

        Exceptions pass: here the host tells the person who set something up.
        """
        from hermes_cli.config import save_env_value  # noqa: PLC0415 - long to import, for setting up only

        for field in _FIELDS:
            if not field.get("secret") and (value := str(values.get(field["key"]) or "").strip()):
                save_env_value(field["env_var"], value)

    def post_setup(self, hermes_home: str, config: dict[str, Any]) -> None:  # noqa: ARG002 - the host's environment has it
        """What `hermes memory setup` hands over to: asks, writes down, and makes this the memory in use.

        Exceptions pass, but for those that a person has to hear in words.
        """
        from honcho_exec.hermes.setup import walk_through  # noqa: PLC0415 - long to import, for setting up only

        try:
            walk_through(self._environ, _profile(), config)
        except HonchoExecError as error:
            print(f"\n  Nothing was changed: {error}\n")  # noqa: T201 - a person sits before it

    def get_status_config(self, provider_config: object = None) -> dict[str, str]:  # noqa: ARG002 - nothing is kept there
        """What `hermes memory status` shows: which Honcho is in use, or why none is."""
        return self._safely("get_status_config", self._described, lambda error: {"problem": str(error)})

    def backup_paths(self) -> list[str]:
        """What `hermes backup` would miss: Honcho's own folder, and the state where it is kept outside HERMES_HOME."""
        return self._safely("backup_paths", self._outside, lambda _: [])

    def _warn(self) -> None:
        """Tell the person at the terminal that memory is not in use, where the host has a way to."""
        trouble = self._provider.trouble
        if trouble is not None and not isinstance(trouble, Disabled) and not isinstance(trouble, RequestError):
            self._say(f"Honcho memory is not in use: {trouble}")

    def _health_changed(self, error: HonchoExecError | None) -> None:
        """Tell the same person, once each, that memory falters and that it works again."""
        text = "Honcho memory works again; what was kept is being delivered"
        if error is not None:
            text = f"Honcho memory falters: {error}. What is said is kept on this machine and delivered later"
        self._safely("warning_callback", lambda: self._say(text), lambda _: None)

    def _say(self, text: str) -> None:
        if callable(self._warning):
            self._warning(text)

    def _described(self) -> dict[str, str]:
        try:
            settings = load(self._environ, profile=_profile()).settings
        except HonchoExecError as error:
            return {"problem": str(error)}
        return {
            "enabled": str(settings.enabled).lower(),
            "backend": settings.backend,
            "url": settings.shown_url,
            "workspace": settings.workspace,
            "state": str(self._provider.home),
        }

    def _outside(self) -> list[str]:
        # Honcho's own folder, the settings that a profile without any of its own shares, and the state.
        shared = Path("~/.hermes/honcho.json").expanduser()
        paths = [Path("~/.honcho").expanduser(), *([shared] if shared.exists() else [])]
        with suppress(HonchoExecError):
            paths.append(self._provider.home)
        outside = [path for path in paths if not path.is_relative_to(self._environ["HERMES_HOME"])]
        return [
            str(path) for path in outside if not any(path != other and path.is_relative_to(other) for other in outside)
        ]

    def _safely(self, what: str, call: Callable[[], T], otherwise: Callable[[HonchoExecError], T]) -> T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the boundary to the host: whatever went wrong ends here
            log_unexpected(_log, what, error)
            return otherwise(
                _UnexpectedError(f"{what} failed unexpectedly ({type(error).__name__}); the log says where")
            )


def _environ() -> Mapping[str, str]:
    """The environment of the profile that asks, as it is at any time.

    A gateway that serves several profiles keeps the variables of each to itself: there, what the process has of
    Honcho's variables is another profile's.
    """
    said = {"HERMES_HOME": str(get_hermes_home())}
    try:
        from agent.secret_scope import current_secret_scope, is_multiplex_active  # noqa: PLC0415 - not every host's
    except ImportError:
        return ChainMap(said, os.environ)
    secrets = dict(current_secret_scope() or {})
    if not is_multiplex_active():
        return ChainMap(said, secrets, os.environ)
    return {name: value for name, value in os.environ.items() if "HONCHO_" not in name} | secrets | said


def _title(session_id: str) -> dict[str, str]:
    """The title that the host has for a session and who gave it; nothing if the host cannot be asked.

    The host passes them to `initialize`, and not when it switches.
    """
    try:
        from hermes_state import SessionDB  # noqa: PLC0415 - not every host's
    except ImportError:
        return {}
    path = get_hermes_home() / "state.db"
    if not path.exists():
        return {}
    database = SessionDB(path, read_only=True)
    try:
        title = str(database.get_session_title(session_id) or "")
        # Only newer hosts know who gave it.
        source_of = getattr(database, "get_session_title_source", lambda _: "")
        return {"session_title": title, "session_title_source": str(source_of(session_id) or "")}
    finally:
        database.close()


def _profile() -> str | None:
    """The host's active profile, where it has such a thing."""
    try:
        from hermes_cli.profiles import get_active_profile_name  # noqa: PLC0415 - not every host's
    except ImportError:
        return None
    return str(get_active_profile_name() or "") or None


def _rewritten(message: str) -> str:
    """What the host makes of a user's message as a question to a memory; empty where it has no means to."""
    try:
        from plugins.memory.query_rewrite import rewrite_memory_query  # noqa: PLC0415 - not every host's
    except ImportError:
        return ""
    return str(rewrite_memory_query(message) or "")


def _told(what: str, future: Future[Receipt]) -> Future[Receipt]:
    # Delivery logs its own failures; what fails at once was never stored, and nobody else would say so.
    if future.done() and (error := future.exception()) is not None:
        _log.warning("%s was not stored: %s", what, error)
    return future
