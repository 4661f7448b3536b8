"""Declare the settings: names, defaults and meanings."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from honcho_exec.settings.types import (
    EMBEDDED,
    Aliases,
    Budget,
    Endpoint,
    JsonMap,
    Key,
    Level,
    Levels,
    Name,
    ObservationMode,
    Seconds,
    Turns,
    Url,
    Wait,
    WriteFrequency,
    from_json,
)

__all__ = ["HOST", "Observation", "Settings", "extra", "variables"]

HOST = "hermes"
"""The host key of the default profile."""

_CLOUD = {"production": "https://api.honcho.dev", "local": "http://localhost:8000"}


class _ObservedPeer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    observe_me: bool | None = None
    observe_others: bool | None = None


class Observation(BaseModel):
    """Which peer observes whom, if it differs from `observationMode`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: _ObservedPeer = _ObservedPeer()
    ai: _ObservedPeer = _ObservedPeer()


def _declare(
    default: object, meaning: str, *, unit: str = "", env: tuple[str, ...] = (), file: tuple[str, ...] = ()
) -> Any:
    """Declare a setting: its default, its meaning and unit, and its other names.

    `env` replaces the variable's name, and its first name is shown; `file` adds keys.
    """
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "env": list(env), "file": list(file)})


class Settings(BaseModel):
    """All settings, frozen; their printed form shows no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: Key | None = _declare(None, "Bearer key of the Honcho server. A local server needs none.")
    base_url: Url | None = _declare(
        None,
        "Honcho server; a trailing /v3 is dropped. `embedded` forces the embedded backend.",
        env=("HONCHO_BASE_URL", "HONCHO_URL"),
        file=("base_url", "endpoint.baseUrl", "environmentUrl"),
    )
    environment: Literal["production", "local"] = _declare(
        "production",
        "Server to use if a key but no URL is set: production (Honcho's cloud) or local (localhost:8000).",
    )
    enabled: bool = _declare(True, "False: nothing is stored, recalled or sent.")
    workspace: Name = _declare(
        HOST,
        "Honcho workspace. By default the host key: hermes, or hermes_<profile>.",
        env=("HONCHO_WORKSPACE_ID", "HONCHO_WORKSPACE"),
    )
    peer_name: Name | None = _declare(None, "The user's peer. By default the operating system's user name.")
    ai_peer: Name = _declare(HOST, "The assistant's peer. By default the host key.")
    timeout: Seconds = _declare(
        30.0,
        "Wall clock limit of one request, from its start to the last byte.",
        unit="s",
        file=("requestTimeout",),
    )
    sync_join_timeout: Seconds = _declare(
        10.0, "How long a tool call or the session's end waits for the pending sync.", unit="s"
    )
    retry_attempts: Annotated[int, Field(ge=1, le=20)] = _declare(3, "Attempts of one request, including the first.")
    retry_max_wait: Seconds = _declare(2.0, "Longest wait between two attempts; caps Retry-After.", unit="s")
    retry_deadline: Seconds = _declare(15.0, "No further attempt of a request begins after this time.", unit="s")
    shutdown_timeout: Seconds = _declare(5.0, "Closing delivers pending rows for at most this time.", unit="s")
    breaker_threshold: Annotated[int, Field(ge=1, le=1000)] = _declare(
        5, "Failures in a row, of the connection or the server, that open the circuit breaker."
    )
    breaker_cooldown: Seconds = _declare(
        10.0,
        "How long the circuit breaker stays open before it lets one request through.",
        unit="s",
    )
    outbox_max_rows: Annotated[int, Field(ge=1)] = _declare(
        100_000, "Largest number of rows in the outbox; further turns fail with Overloaded.", unit="rows"
    )
    pin_user_peer: bool = _declare(False, "True: every runtime user is the peer `peerName`.", file=("pinPeerName",))
    user_peer_aliases: Aliases = _declare({}, "Maps runtime user ids to peers, as a JSON object.")
    runtime_peer_prefix: str = _declare("", "Prefix for the id of a runtime user without an alias.")
    session_strategy: Literal["per-directory", "per-session", "per-repo", "global"] = _declare(
        "per-directory", "Which conversations of the host share a session."
    )
    session_peer_prefix: bool = _declare(False, "True: the user's peer is put before the session's name.")
    sessions: JsonMap = _declare({}, "Maps directories to session names, as a JSON object.")
    save_messages: bool = _declare(True, "False: no message is stored automatically.")
    write_frequency: WriteFrequency = _declare(
        "async",
        "When turns are sent; they are stored at once in any case. async: in the background; turn: sync_turn waits for"
        " it, at most the sync join timeout; session: at the session's end; a number: when so many turns are gathered.",
    )
    save_assistant_messages: bool = _declare(True, "False: only the user's side of a turn is stored.")
    message_max_chars: Annotated[int, Field(ge=100, le=25_000)] = _declare(
        25_000, "Longer messages are split into marked parts.", unit="characters"
    )
    recall_mode: Annotated[
        Literal["hybrid", "context", "tools"],
        BeforeValidator(lambda value: "hybrid" if value == "auto" else value),
    ] = _declare("hybrid", "hybrid: injection and tools; context: no tools; tools: no injection. `auto` is hybrid.")
    context_tokens: Budget | None = _declare(
        None, "Budget of what is injected, at about 4 characters a token. Unset or 0: no cap.", unit="tokens"
    )
    context_cadence: Turns = _declare(1, "The base context is fetched at most once in so many turns.", unit="turns")
    dialectic_cadence: Turns = _declare(1, "The dialectic is asked at most once in so many turns.", unit="turns")
    injection_frequency: Literal["every-turn", "first-turn"] = _declare(
        "every-turn", "first-turn: the base context is injected once; the dialectic keeps its own cadence."
    )
    init_on_session_start: bool = _declare(
        False, "In the recall mode `tools`: create the session at the start, not at the first turn or tool call."
    )
    first_turn_base_wait: Wait = _declare(
        3.0, "The longest time that the first turn waits for the base context; later turns never wait.", unit="s"
    )
    first_turn_dialectic_wait: Wait = _declare(2.0, "The same for the dialectic's first answer.", unit="s")
    recall_sync: bool = _declare(
        False,
        "True: recall asks with the current request and is waited for, at most `timeout` or 5 s; what is late or fails"
        " is left out.",
    )
    query_rewrite: bool = _declare(False, "True: the host's query rewriter words the dialectic's first question.")
    dialectic_depth: Annotated[int, Field(ge=1, le=3)] = _declare(1, "Passes of the dialectic.", unit="passes")
    dialectic_depth_levels: Levels | None = _declare(
        None, "Reasoning level of each pass, separated by commas or as a JSON list. Unset: depends on the depth."
    )
    dialectic_reasoning_level: Level = _declare("low", "Reasoning level of the dialectic and of honcho_reasoning.")
    dialectic_dynamic: bool = _declare(True, "Whether the model may choose the reasoning level of a call.")
    reasoning_heuristic: bool = _declare(
        True, "Raise the dialectic's level with the request's length: one from 120 characters, two from 400."
    )
    reasoning_level_cap: Level = _declare("high", "The highest level that the heuristic raises to.")
    dialectic_max_chars: Annotated[int, Field(ge=0)] = _declare(
        600, "An injected answer of the dialectic is cut to this; 0: not at all.", unit="characters"
    )
    dialectic_max_input_chars: Annotated[int, Field(ge=1, le=10_000)] = _declare(
        10_000, "A question to the dialectic is cut to this.", unit="characters"
    )
    observation_mode: ObservationMode = _declare(
        "directional",
        "directional: both peers observe themselves and each other. unified: the user observes itself, the "
        "assistant observes others. Written when a peer joins; what the server already has wins.",
    )
    observation: Annotated[Observation, BeforeValidator(from_json)] = _declare(
        Observation(), 'Departures from it, as {"user": {"observeMe": …, "observeOthers": …}, "ai": {…}}.'
    )

    migrate_memory_files: bool = _declare(
        False, "Upload MEMORY.md, USER.md and SOUL.md of the host, once for each workspace and user."
    )
    redact: bool = _declare(
        True, "Mask obvious secrets (keys, tokens, private keys) before anything is stored or sent."
    )
    llm_base_url: Endpoint | None = _declare(
        None,
        "OpenAI-compatible endpoint that the embedded Honcho asks to answer questions; otherwise it quotes messages.",
    )
    llm_model: Name | None = _declare(None, "The model to ask there.")
    llm_api_key: Key | None = _declare(None, "Bearer key of that endpoint, if it requires one.")

    @property
    def has_model(self) -> bool:
        """Whether a language model answers questions: Honcho's own, or the one that the embedded Honcho asks."""
        return self.backend_url != EMBEDDED or (self.llm_base_url is not None and self.llm_model is not None)

    @property
    def backend_url(self) -> str:
        """The destination of requests: a URL, or `embedded` if neither a URL nor a key is set."""
        if self.base_url is not None:
            return self.base_url
        if self.api_key is not None:
            return _CLOUD[self.environment]
        return EMBEDDED

    @property
    def shown_url(self) -> str:
        """The destination of requests without a user name or password, as it is shown and stored."""
        return without_password(self.backend_url)

    @property
    def backend(self) -> Literal["embedded", "server", "cloud"]:
        """Which backend that is."""
        if self.backend_url == EMBEDDED:
            return "embedded"
        return "server" if self.base_url is not None else "cloud"

    def destination(self, workspace: str) -> str:
        """The name under which the state of a workspace is stored: server and workspace."""
        return f"{self.shown_url} {workspace}"

    def observes(self, *, ai: bool) -> tuple[bool, bool]:
        """Return (observe_me, observe_others) with which a peer joins a session."""
        unified = self.observation_mode == "unified"
        me, others = (not (unified and ai), not (unified and not ai))
        chosen = self.observation.ai if ai else self.observation.user
        return (
            me if chosen.observe_me is None else chosen.observe_me,
            others if chosen.observe_others is None else chosen.observe_others,
        )


def variables(name: str) -> tuple[str, ...]:
    """Return the environment variables of a field; the first one is shown."""
    return tuple(extra(name)["env"]) or (f"HONCHO_{name.upper()}",)


def extra(name: str) -> dict[str, Any]:
    """Return a field's `unit`, `env` and `file`."""
    found = Settings.model_fields[name].json_schema_extra
    return found if isinstance(found, dict) else {}


def without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)
