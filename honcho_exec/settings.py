"""Settings: declared once, read once from the environment and Honcho's own file, frozen.

The environment beats the file; in the file the host's block (`hosts.<host>`) beats the root; then the default.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from honcho_exec.errors import ConfigurationError

__all__ = ["EMBEDDED", "LoadedSettings", "Observation", "Settings", "load", "state_home", "variables"]

EMBEDDED = "embedded"
"""The base URL that stands for the local Honcho inside this process."""

_CLOUD = {"production": "https://api.honcho.dev", "local": "http://localhost:8000"}
_HOST = "hermes"
_OTHER_VARIABLES = ("HONCHO_EXEC_HOME",)


def _base_url(value: str) -> str:
    if value == EMBEDDED:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL, such as http://localhost:8000, or 'embedded'")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 0 to 65535") from None
    return re.sub(r"/v\d+/*$", "", value).rstrip("/")


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _from_json(value: object) -> object:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a JSON object") from None
    return value


def _header_safe(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("must be printable ASCII without spaces: it looks damaged by copying")
    return value


_Key = Annotated[SecretStr, AfterValidator(_header_safe)]
_Url = Annotated[str, AfterValidator(_base_url)]
_JsonMap = Annotated[dict[str, str], BeforeValidator(_from_json)]
_Name = Annotated[str, Field(min_length=1)]
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_Level = Literal["minimal", "low", "medium", "high", "max"]


class _ObservedPeer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    observe_me: bool | None = None
    observe_others: bool | None = None


class Observation(BaseModel):
    """Which peer observes whom, where it departs from `observationMode`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: _ObservedPeer = _ObservedPeer()
    ai: _ObservedPeer = _ObservedPeer()


def _declare(
    default: object, meaning: str, *, unit: str = "", env: tuple[str, ...] = (), file: tuple[str, ...] = ()
) -> Any:
    """Declare a setting: its default, its meaning and unit, and its other names.

    `env` replaces the variable's name, the first being the one that is shown; `file` adds further keys.
    """
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "env": list(env), "file": list(file)})


class Settings(BaseModel):
    """Every setting, frozen; its printed form shows no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: _Key | None = _declare(None, "Bearer key of the Honcho server. A local server needs none.")
    base_url: _Url | None = _declare(
        None,
        "Honcho server; a trailing /v3 is dropped. `embedded` forces the embedded backend.",
        env=("HONCHO_BASE_URL", "HONCHO_URL"),
        file=("base_url", "endpoint.baseUrl", "environmentUrl"),
    )
    environment: Literal["production", "local"] = _declare(
        "production",
        "Which known server to use when a key is set and no URL: Honcho's cloud, or localhost:8000.",
    )
    enabled: bool = _declare(True, "False: nothing is stored, recalled or sent, and status says so.")
    workspace: _Name = _declare(
        _HOST,
        "Honcho workspace. By default the host key: hermes, or hermes_<profile>.",
        env=("HONCHO_WORKSPACE_ID", "HONCHO_WORKSPACE"),
    )
    peer_name: _Name | None = _declare(None, "The user's peer. By default the operating system's user name.")
    ai_peer: _Name = _declare(_HOST, "The assistant's peer. By default the host key.")
    timeout: _Seconds = _declare(
        30.0,
        "Wall clock for one request, from its start to the last byte.",
        unit="s",
        file=("requestTimeout",),
    )
    sync_join_timeout: _Seconds = _declare(
        10.0, "How long a tool call or the session's end waits for the pending sync.", unit="s"
    )
    retry_attempts: Annotated[int, Field(ge=1, le=20)] = _declare(3, "Calls of one request, the first included.")
    retry_max_wait: _Seconds = _declare(2.0, "Longest wait between two of them; caps Retry-After.", unit="s")
    retry_deadline: _Seconds = _declare(15.0, "No further call of one request is begun after this.", unit="s")
    shutdown_timeout: _Seconds = _declare(5.0, "Closing drains the outbox at most this long.", unit="s")
    outbox_max_rows: Annotated[int, Field(ge=1)] = _declare(
        100_000, "Rows the outbox may hold; a turn beyond them fails with Overloaded.", unit="rows"
    )
    pin_user_peer: bool = _declare(False, "Every runtime user is `peerName`.", file=("pinPeerName",))
    user_peer_aliases: _JsonMap = _declare({}, "Runtime user id to peer, as a JSON object.")
    runtime_peer_prefix: str = _declare("", "Put before the id of a runtime user without an alias.")
    session_strategy: Literal["per-directory", "per-session", "per-repo", "global"] = _declare(
        "per-directory", "What makes two conversations of the host the same session."
    )
    session_peer_prefix: bool = _declare(False, "Put the user's peer before the session's name.")
    sessions: _JsonMap = _declare({}, "Directory to session name, as a JSON object.")
    save_messages: bool = _declare(True, "False: no message is written by itself, anywhere.")
    save_assistant_messages: bool = _declare(True, "False: only the user's side of a turn is written.")
    message_max_chars: Annotated[int, Field(ge=100, le=25_000)] = _declare(
        25_000, "Longer messages are split into marked parts.", unit="characters"
    )
    recall_mode: Annotated[
        Literal["hybrid", "context", "tools"],
        BeforeValidator(lambda value: "hybrid" if value == "auto" else value),
    ] = _declare("hybrid", "hybrid: injection and tools; context: no tools; tools: no injection. `auto` is hybrid.")
    context_tokens: Annotated[int, Field(ge=1)] | None = _declare(
        None, "Budget of what is injected, at about 4 characters a token. Unset: no cap.", unit="tokens"
    )
    dialectic_reasoning_level: _Level = _declare("low", "Reasoning level of honcho_reasoning.")
    dialectic_dynamic: bool = _declare(True, "Whether the model may choose the reasoning level of a call.")
    observation_mode: Literal["directional", "unified"] = _declare(
        "directional",
        "directional: both peers observe themselves and each other. unified: the user observes itself, the "
        "assistant observes others. Written when a peer joins; what the server already has wins.",
    )
    observation: Annotated[Observation, BeforeValidator(_from_json)] = _declare(
        Observation(), 'Departures from it, as {"user": {"observeMe": …, "observeOthers": …}, "ai": {…}}.'
    )

    @property
    def backend_url(self) -> str:
        """Where requests go: a URL, or `embedded` when neither a URL nor a key is set."""
        if self.base_url is not None:
            return self.base_url
        if self.api_key is not None:
            return _CLOUD[self.environment]
        return EMBEDDED

    @property
    def shown_url(self) -> str:
        """The same, as it may be shown and stored: without a user name or password."""
        return _without_password(self.backend_url)

    @property
    def backend(self) -> Literal["embedded", "server", "cloud"]:
        """Which backend that is."""
        if self.backend_url == EMBEDDED:
            return "embedded"
        return "server" if self.base_url is not None else "cloud"

    def observes(self, *, ai: bool) -> tuple[bool, bool]:
        """(observe_me, observe_others) that a peer joins a session with."""
        unified = self.observation_mode == "unified"
        me, others = (not (unified and ai), not (unified and not ai))
        chosen = self.observation.ai if ai else self.observation.user
        return (
            me if chosen.observe_me is None else chosen.observe_me,
            others if chosen.observe_others is None else chosen.observe_others,
        )


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings with where each came from.

    Attributes:
        settings: the values.
        sources: for each field that is not at its default, the variable or the file's key that set it.
        warnings: what looks like a mistake but is not an error.
        host: the host key that chose the file's block.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    host: str


def variables(name: str) -> tuple[str, ...]:
    """The environment variables of a field, the one to show first."""
    return tuple(_extra(name)["env"]) or (f"HONCHO_{name.upper()}",)


def state_home(environ: Mapping[str, str], hermes_home: str | Path | None = None) -> Path:
    """The folder of the state on disk: HONCHO_EXEC_HOME, else the host's home, else ~/.honcho/exec.

    `hermes_home` is what the host says; without it HERMES_HOME counts. The most explicit wins.
    """
    if chosen := environ.get("HONCHO_EXEC_HOME", "").strip():
        return Path(chosen).expanduser()
    if host_home := hermes_home or environ.get("HERMES_HOME", "").strip():
        return Path(host_home).expanduser() / "honcho_exec"
    return Path("~/.honcho/exec").expanduser()


def load(
    environ: Mapping[str, str] | None = None,
    *,
    hermes_home: str | Path | None = None,
    profile: str | None = None,
) -> LoadedSettings:
    """Read the settings from `environ` (the process's environment when None) and the first file there is.

    Raises:
        ConfigurationError: one or more values cannot be used; names every one.
    """
    environ = os.environ if environ is None else environ
    root, path = _read_file(environ, hermes_home)
    host = _host_key(environ, root, profile)
    found = _from_file(root, path, host) | _from_environment(environ)
    values = {name: value for name, (value, _) in found.items()}
    values.setdefault("workspace", host)
    values.setdefault("ai_peer", host)
    sources = {name: source for name, (_, source) in found.items()}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(*_problems(error, found), *_misspelt(environ)) from None
    return LoadedSettings(settings, sources, tuple(_misspelt(environ)), host)


def _extra(name: str) -> dict[str, Any]:
    extra = Settings.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    for name in Settings.model_fields:
        for variable in variables(name):
            value = environ.get(variable, "").strip()
            if value:
                found[name] = (value, variable)
                break
    return found


def _from_file(root: dict[str, Any], path: Path | None, host: str) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    blocks = (("", root), *((f"hosts.{key}.", block) for key, block in _host_blocks(root, host)))
    for prefix, block in blocks:
        for name in Settings.model_fields:
            for key in (to_camel(name), *_extra(name)["file"]):
                value = _at(block, key)
                if value is not None and value != "":
                    found[name] = (value, f"{prefix}{key} in {path}")
                    break
    return found


def _host_blocks(root: dict[str, Any], host: str) -> list[tuple[str, dict[str, Any]]]:
    hosts = root.get("hosts")
    if not isinstance(hosts, dict):
        return []
    # Older files wrote a profile's block as hermes.<profile>.
    for key in (host, host.replace(f"{_HOST}_", f"{_HOST}.", 1)):
        if isinstance(block := hosts.get(key), dict) and block:
            return [(key, block)]
    return []


def _at(block: dict[str, Any], dotted: str) -> object:
    value: object = block
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _read_file(environ: Mapping[str, str], hermes_home: str | Path | None) -> tuple[dict[str, Any], Path | None]:
    home = Path(environ.get("HOME") or "~").expanduser()
    host_home = hermes_home or environ.get("HERMES_HOME", "").strip()
    candidates = [Path(host_home).expanduser() / "honcho.json"] if host_home else []
    candidates += [home / ".hermes" / "honcho.json", home / ".honcho" / "config.json"]
    for path in candidates:
        try:
            root = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(root, dict):
            raise ConfigurationError(f"{path} must hold a JSON object")
        return root, path
    return {}, None


def _host_key(environ: Mapping[str, str], root: dict[str, Any], profile: str | None) -> str:
    if chosen := environ.get("HERMES_HONCHO_HOST", "").strip():
        return chosen
    if profile and profile not in {"default", "custom"}:
        safe = "".join(c if c.isalnum() or c in "_-" else "_" for c in profile).strip("_")
        return f"{_HOST}_{safe or 'profile'}"
    return str(root.get("defaultHost") or "").strip() or _HOST


def _problems(error: ValidationError, found: Mapping[str, tuple[object, str]]) -> list[str]:
    problems = []
    for detail in error.errors(include_url=False, include_context=False):
        name = str(detail["loc"][0])
        value, source = found[name]
        shown = (
            ""
            if "SecretStr" in str(Settings.model_fields[name].annotation)
            else f" (it is {_without_password(repr(value))})"
        )
        what = detail["msg"].removeprefix("Value error, ")
        where = "".join(f".{part}" for part in detail["loc"][1:])
        problems.append(f"{source}{where}: {what}{shown}")
    return problems


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    known = [variable for name in Settings.model_fields for variable in variables(name)]
    known += _OTHER_VARIABLES
    warnings = []
    for variable in sorted(environ):
        if variable.startswith("HONCHO_") and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
            if near:
                warnings.append(f"{variable} is not a setting; did you mean {near[0]}?")
    return warnings
