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

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from honcho_exec.errors import ConfigurationError

__all__ = [
    "EMBEDDED",
    "LoadedSettings",
    "Observation",
    "Settings",
    "load",
    "state_home",
    "stated_home",
    "variables",
]

EMBEDDED = "embedded"
"""The base URL that stands for the local Honcho inside this process."""

_CLOUD = {"production": "https://api.honcho.dev", "local": "http://localhost:8000"}
_HOST = "hermes"
_OTHER_VARIABLES = ("HONCHO_EXEC_HOME",)

# Why pydantic refuses a value, by its own name for it, for people.
_PLAINLY = {
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    "finite_number": "must be a finite number",
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a JSON object"),
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "extra_forbidden": "is not known here",
}


def _base_url(value: str) -> str:
    if value == EMBEDDED:
        return value
    if " " in value or not value.isprintable():
        raise ValueError("must not hold spaces or control characters")
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"}:
        raise ValueError("must be an http:// or https:// URL, such as http://localhost:8000, or 'embedded'")
    if "?" in value or "#" in value:
        raise ValueError("must not have a query or a fragment, only the server's address")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 0 to 65535") from None
    if not _is_host(host):
        raise ValueError(
            "has a host name that cannot be one, such as one with an empty part or a sign it must not hold"
        )
    return re.sub(r"/v\d+/*$", "", value).rstrip("/")


def _is_host(host: str) -> bool:
    if ":" in host:
        # An IPv6 address: urlsplit has seen to its brackets.
        return True
    try:
        if not host.isascii():
            # What the HTTP client encodes it with; it takes long to import.
            import idna  # noqa: PLC0415

            host = idna.encode(host).decode()
        host.encode("idna")
    except UnicodeError:
        return False
    return re.fullmatch(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]*", host) is not None


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)


def _shown(value: object) -> str:
    """A value as an error may show it: without what may be a password or a key in a URL, however damaged."""
    if isinstance(value, str) and re.search("[:/]", value):
        value = re.sub(r"^.*@", "…@", value, flags=re.DOTALL)
        value = re.sub(r"([?#]).+", r"\1…", value, flags=re.DOTALL)
    return repr(value)


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
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
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

    Raises:
        ConfigurationError: it begins with the home of a user whom there is not.
    """
    source = "HONCHO_EXEC_HOME"
    if not environ.get(source, "").strip() and (hermes_home or environ.get("HERMES_HOME", "").strip()):
        source = "HERMES_HOME"
    return _expanded(stated_home(environ, hermes_home), source)


def stated_home(environ: Mapping[str, str], hermes_home: str | Path | None = None) -> Path:
    """The same as it was said, before a `~` in it is looked up."""
    if chosen := environ.get("HONCHO_EXEC_HOME", "").strip():
        return Path(chosen)
    if host_home := hermes_home or environ.get("HERMES_HOME", "").strip():
        return Path(host_home) / "honcho_exec"
    return Path("~/.honcho/exec")


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


def _expanded(path: Path, source: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{source}: there is no home folder for {path}; give the whole path") from None


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
    home = _expanded(Path(environ.get("HOME") or "~"), "HOME")
    host_home = hermes_home or environ.get("HERMES_HOME", "").strip()
    candidates = [_expanded(Path(host_home), "HERMES_HOME") / "honcho.json"] if host_home else []
    candidates += [home / ".hermes" / "honcho.json", home / ".honcho" / "config.json"]
    for path in candidates:
        try:
            root = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except ValueError as error:
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
    for detail in error.errors(include_url=False):
        name, *within = detail["loc"]
        value, source = found[str(name)]
        secret = "SecretStr" in str(Settings.model_fields[str(name)].annotation)
        shown = "" if secret else f" (it is {_shown(detail['input'] if within else value)})"
        where = "".join(f".{part}" for part in within)
        problems.append(f"{source}{where}: {_plainly(detail['type'], detail['msg'], detail.get('ctx', {}))}{shown}")
    return problems


def _plainly(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """What is wrong with a value, in a sentence for whoever set it."""
    if kind in _PLAINLY:
        return _PLAINLY[kind].format_map(context)
    return message.removeprefix("Value error, ")


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
