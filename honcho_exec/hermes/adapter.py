"""The adapter for Hermes Agent: `HonchoProvider` under the contract of its `MemoryProvider`, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from agent.memory_provider import MemoryProvider

from honcho_exec.conversation.tool_answers import error_answer
from honcho_exec.delivery.futures import failed
from honcho_exec.errors import Disabled, HonchoExecError, RequestError
from honcho_exec.hermes.host import active_profile, environment, rewrite_query, session_title
from honcho_exec.model import Receipt
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.runtime.log import log_unexpected
from honcho_exec.settings import load, variables

__all__ = ["HonchoExecMemoryProvider"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CONTEXT_ARGUMENTS = (
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
"""The host's arguments that `initialize` uses."""

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

    Exceptions reach the host only if it can handle them. An unexpected one is logged, without its text, which may
    quote a conversation, and the host gets the answer of an empty memory.
    """

    name = "honcho_exec"

    def __init__(self) -> None:
        self._environ = environment()
        self._warning: object = None
        self._provider = HonchoProvider(
            environ=self._environ,
            profile=active_profile(),
            on_health_change=self._health_changed,
            query_rewriter=rewrite_query,
        )

    def __repr__(self) -> str:
        return f"<HonchoExecMemoryProvider {self._provider!r}>"

    def is_available(self) -> bool:
        """Return whether the provider can be used; makes no request and imports no SDK."""
        return self._guarded("is_available", self._provider.is_available, lambda _: False)

    def initialize(self, session_id: str, **kwargs: Any) -> None:
        """Begin a conversation; returns at once, even if the server does not answer."""
        context = {name: str(kwargs[name]) for name in _CONTEXT_ARGUMENTS if kwargs.get(name) is not None}
        home = str(kwargs.get("hermes_home") or self._environ["HERMES_HOME"])
        self._warning = kwargs.get("warning_callback")
        self._guarded(
            "initialize", lambda: self._provider.initialize(session_id, hermes_home=home, **context), lambda _: None
        )
        self._guarded("warning_callback", self._warn, lambda _: None)

    def system_prompt_block(self) -> str:
        """Return the text about this memory in the system prompt, which is static."""
        return self._guarded("system_prompt_block", self._provider.system_prompt_block, lambda _: "")

    def on_turn_start(self, turn_number: int, message: str, **kwargs: Any) -> None:
        """Note that a turn begins."""
        self._guarded(
            "on_turn_start", lambda: self._provider.on_turn_start(turn_number, message, **kwargs), lambda _: None
        )

    def prefetch(self, query: str, *, session_id: str = "") -> str:
        """Return the text to inject before this turn; by default it is awaited in the first turn only."""
        return self._guarded("prefetch", lambda: self._provider.prefetch(query, session_id=session_id), lambda _: "")

    def queue_prefetch(self, query: str, *, session_id: str = "") -> None:
        """Begin to fetch the text for the next turn."""
        self._guarded(
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
        """Store a turn durably, and return the Future of its delivery, which the host ignores."""
        future = self._guarded(
            "sync_turn",
            lambda: self._provider.sync_turn(user_content, assistant_content, session_id=session_id, messages=messages),
            failed,
        )
        return _log_failure("a turn", future)

    def get_tool_schemas(self) -> list[dict[str, Any]]:
        """Return the tools as function schemas; the host also asks before `initialize`."""
        return self._guarded("get_tool_schemas", self._provider.get_tool_schemas, lambda _: [])

    def handle_tool_call(self, tool_name: str, args: object = None, **kwargs: Any) -> str:
        """Answer a tool call with a JSON object."""
        return self._guarded(
            tool_name,
            lambda: self._provider.handle_tool_call(tool_name, args, **kwargs),
            lambda error: error_answer(str(tool_name)[:80], error),
        )

    def on_session_end(self, messages: Sequence[Mapping[str, Any]] = ()) -> None:
        """Wait for the pending sync, at most the sync join timeout."""
        self._guarded("on_session_end", lambda: self._provider.on_session_end(messages), lambda _: None)

    def on_memory_write(
        self, action: str, target: str, content: str, metadata: Mapping[str, Any] | None = None
    ) -> Future[Receipt]:
        """Store a write of the built-in memory as a conclusion; the host ignores the Future."""
        future = self._guarded(
            "on_memory_write",
            lambda: self._provider.on_memory_write(action, target, content, metadata=metadata),
            failed,
        )
        return _log_failure("a write of the built-in memory", future)

    def on_delegation(self, task: str, result: str, *, child_session_id: str = "", **kwargs: Any) -> Future[Receipt]:
        """Store the task of a subagent and its result; the host ignores the Future."""
        future = self._guarded(
            "on_delegation",
            lambda: self._provider.on_delegation(task, result, child_session_id=child_session_id, **kwargs),
            failed,
        )
        return _log_failure("a subagent's answer", future)

    def on_pre_compress(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Store turns that are about to be summarized; adds nothing to the summary."""
        return self._guarded("on_pre_compress", lambda: self._provider.on_pre_compress(messages), lambda _: "")

    def on_session_switch(self, new_session_id: str, **kwargs: Any) -> None:
        """Continue under another session id of the host, and under the title that a person gave it, if any.

        The host numbers the title of a compressed conversation: there the person's title is kept.
        """
        if kwargs.get("reason") != "compression" and not kwargs.get("rewound"):
            kwargs |= self._guarded("the title", lambda: session_title(new_session_id), lambda _: {})
        self._guarded(
            "on_session_switch", lambda: self._provider.on_session_switch(new_session_id, **kwargs), lambda _: None
        )

    def shutdown(self) -> None:
        """Deliver pending rows for at most the shutdown timeout; the rest stays on disk."""
        self._guarded("shutdown", self._provider.shutdown, lambda _: None)

    def get_config_schema(self) -> list[dict[str, Any]]:
        """Return the fields that `hermes memory setup` asks for; all others are in Honcho's own file."""
        return [dict(field) for field in _FIELDS]

    def save_config(self, values: Mapping[str, Any], hermes_home: str) -> None:  # noqa: ARG002 - the host knows it too
        """Save the fields, except the key, in the host's `.env`; an empty value changes nothing.

        Exceptions pass: the host shows them to the person.
        """
        from hermes_cli.config import save_env_value  # noqa: PLC0415 - long to import, for setting up only

        for field in _FIELDS:
            if not field.get("secret") and (value := str(values.get(field["key"]) or "").strip()):
                save_env_value(field["env_var"], value)

    def post_setup(self, hermes_home: str, config: dict[str, Any]) -> None:  # noqa: ARG002 - the host's environment has it
        """Run the set-up of `hermes memory setup`: ask, save, and make this the memory in use.

        Unexpected exceptions pass: the host shows them to the person.
        """
        from honcho_exec.hermes.setup import walk_through  # noqa: PLC0415 - long to import, for setting up only

        try:
            walk_through(self._environ, active_profile(), config)
        except HonchoExecError as error:
            print(f"\n  Nothing was changed: {error}\n")  # noqa: T201 - read by a person

    def get_status_config(self, provider_config: object = None) -> dict[str, str]:  # noqa: ARG002 - nothing is kept there
        """Return what `hermes memory status` shows: the Honcho in use, or why there is none."""
        return self._guarded("get_status_config", self._describe, lambda error: {"problem": str(error)})

    def backup_paths(self) -> list[str]:
        """Return the paths that `hermes backup` would miss: Honcho's folder, and a state folder outside HERMES_HOME."""
        return self._guarded("backup_paths", self._paths_outside, lambda _: [])

    def _warn(self) -> None:
        """Tell the person at the terminal, if the host can, that the memory is not in use."""
        trouble = self._provider.trouble
        if trouble is not None and not isinstance(trouble, Disabled) and not isinstance(trouble, RequestError):
            self._say(f"Honcho memory is not in use: {trouble}")

    def _health_changed(self, error: HonchoExecError | None) -> None:
        """Tell the same person when delivery begins to fail, and when it works again."""
        text = "Honcho memory works again; the turns that were kept are being delivered"
        if error is not None:
            text = f"Honcho memory does not work: {error}. Turns are kept on this machine and delivered later"
        self._guarded("warning_callback", lambda: self._say(text), lambda _: None)

    def _say(self, text: str) -> None:
        if callable(self._warning):
            self._warning(text)

    def _describe(self) -> dict[str, str]:
        try:
            settings = load(self._environ, profile=active_profile()).settings
        except HonchoExecError as error:
            return {"problem": str(error)}
        return {
            "enabled": str(settings.enabled).lower(),
            "backend": settings.backend,
            "url": settings.shown_url,
            "workspace": settings.workspace,
            "state": str(self._provider.home),
        }

    def _paths_outside(self) -> list[str]:
        # Honcho's own folder, the settings that profiles without their own share, and the state.
        shared = Path("~/.hermes/honcho.json").expanduser()
        paths = [Path("~/.honcho").expanduser(), *([shared] if shared.exists() else [])]
        with suppress(HonchoExecError):
            paths.append(self._provider.home)
        outside = [path for path in paths if not path.is_relative_to(self._environ["HERMES_HOME"])]
        return [
            str(path) for path in outside if not any(path != other and path.is_relative_to(other) for other in outside)
        ]

    def _guarded(self, what: str, call: Callable[[], T], otherwise: Callable[[HonchoExecError], T]) -> T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the boundary to the host: every exception ends here
            log_unexpected(_log, what, error)
            return otherwise(
                _UnexpectedError(f"{what} failed unexpectedly ({type(error).__name__}); the log says where")
            )


def _log_failure(what: str, future: Future[Receipt]) -> Future[Receipt]:
    # Delivery logs its own failures. A Future that has failed already is of a turn that was never stored.
    if future.done() and (error := future.exception()) is not None:
        _log.warning("%s was not stored: %s", what, error)
    return future
