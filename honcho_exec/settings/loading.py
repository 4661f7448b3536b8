"""Read the settings once, from the environment and Honcho's own file, and freeze them.

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
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from honcho_exec.errors import ConfigurationError
from honcho_exec.settings.schema import HOST, Settings, extra, variables

__all__ = ["LoadedSettings", "load", "state_home", "stated_home"]

_OTHER_VARIABLES = ("HONCHO_EXEC_HOME", "HONCHO_SERVE_KEY")
_PROFILES = "profiles"

# What pydantic's error types mean, for people.
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


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings with the source of each.

    Attributes:
        settings: the values.
        sources: for each field that is not at its default, the variable or the file's key that set it.
        warnings: likely mistakes that are not errors.
        host: the host key that chose the file's block.
        file: the file that was read, if any.
        grant: the key of the block under `hosts` whose OAuth grant has the API key, if any.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    host: str
    file: Path | None
    grant: str | None = None


def state_home(environ: Mapping[str, str], hermes_home: str | Path | None = None) -> Path:
    """Return the state folder: HONCHO_EXEC_HOME, else in the host's home, else ~/.honcho/exec.

    `hermes_home` replaces HERMES_HOME.

    Raises:
        ConfigurationError: it begins with the home of an unknown user.
    """
    source = "HONCHO_EXEC_HOME"
    if not environ.get(source, "").strip() and (hermes_home or environ.get("HERMES_HOME", "").strip()):
        source = "HERMES_HOME"
    return _expanded(stated_home(environ, hermes_home), source)


def stated_home(environ: Mapping[str, str], hermes_home: str | Path | None = None) -> Path:
    """Return the state folder as configured, before a `~` in it is expanded."""
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

    Args:
        environ: the variables.
        hermes_home: replaces HERMES_HOME.
        profile: the host's profile; by default that of the host's home.

    Raises:
        ConfigurationError: one or more values are invalid; names every one.
    """
    environ = os.environ if environ is None else environ
    home = _host_home(environ, hermes_home)
    root, path = _read_file(environ, home)
    host = _host_key(environ, root, _profile_of(home) if profile is None else profile)
    found = _from_file(root, path, host) | _from_environment(environ)
    values = {name: value for name, (value, _) in found.items()}
    values.setdefault("workspace", host)
    values.setdefault("ai_peer", host)
    sources = {name: source for name, (_, source) in found.items()}
    bent = _bend(values, found)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(*_problems(error, found), *_misspelt(environ)) from None
    grant = _grant(root, host, sources.get("api_key", ""), path)
    warnings = (*_misspelt(environ), *bent, *_without_effect(settings))
    return LoadedSettings(settings, sources, warnings, host, path, grant)


def _expanded(path: Path, source: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{source}: there is no home folder for {path}; give the whole path") from None


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
            for key in (to_camel(name), *extra(name)["file"]):
                value = _at(block, key)
                # An empty text in a host's block replaces the root's value if the setting can be empty.
                if value is not None and (value != "" or Settings.model_fields[name].default == ""):
                    found[name] = (value, f"{prefix}{key} in {path}")
                    break
    return found


def _host_blocks(root: dict[str, Any], host: str) -> list[tuple[str, dict[str, Any]]]:
    hosts = root.get("hosts")
    if not isinstance(hosts, dict):
        return []
    # Older files wrote a profile's block as hermes.<profile>.
    for key in (host, host.replace(f"{HOST}_", f"{HOST}.", 1)):
        if isinstance(block := hosts.get(key), dict) and block:
            return [(key, block)]
    return []


def _grant(root: dict[str, Any], host: str, source: str, path: Path | None) -> str | None:
    """Return the block whose grant has the API key; a key from anywhere else has precedence and no grant."""
    for key, block in _host_blocks(root, host):
        if source == f"hosts.{key}.apiKey in {path}" and isinstance(block.get("oauth"), dict):
            return key
    return None


def _at(block: dict[str, Any], dotted: str) -> object:
    value: object = block
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _host_home(environ: Mapping[str, str], hermes_home: str | Path | None) -> Path | None:
    said = hermes_home or environ.get("HERMES_HOME", "").strip()
    return _expanded(Path(said), "HERMES_HOME") if said else None


def _profile_of(home: Path | None) -> str | None:
    """Return the profile of a home: the host keeps profiles in `profiles/`."""
    return home.name if home is not None and home.parent.name == _PROFILES else None


def _read_file(environ: Mapping[str, str], host_home: Path | None) -> tuple[dict[str, Any], Path | None]:
    home = _expanded(Path(environ.get("HOME") or "~"), "HOME")
    candidates = [] if host_home is None else [host_home / "honcho.json"]
    if host_home is not None and _profile_of(host_home):
        # The default profile's file is next to the profiles, wherever the host's folder is.
        candidates.append(host_home.parent.parent / "honcho.json")
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
        return f"{HOST}_{safe or 'profile'}"
    return str(root.get("defaultHost") or "").strip() or HOST


def _bend(values: dict[str, object], found: Mapping[str, tuple[object, str]]) -> list[str]:
    """Replace values of the file that are out of range by the nearest valid ones; return a warning for each.

    Existing files were written for a provider that takes any number. A variable out of range stays an error.
    """
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        return []
    bent = []
    for detail in details:
        name, context = str(detail["loc"][0]), detail.get("ctx", {})
        value, source = found[name]
        if len(detail["loc"]) > 1 or source in variables(name):
            continue
        match detail["type"]:
            case "greater_than_equal":
                values[name] = context["ge"]
            case "less_than_equal":
                values[name] = context["le"]
            case "too_long" if isinstance(value, list):
                values[name] = value[: context["max_length"]]
            case "greater_than":
                values[name] = Settings.model_fields[name].default
            case _:
                continue
        bent.append(f"{source}: {value!r} is out of range; {values[name]!r} is used")
    return bent


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
    """Describe in words why a value is invalid."""
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


def _shown(value: object) -> str:
    """Return a value for an error, without possible passwords or keys in a URL, also in a broken one."""
    if isinstance(value, str) and re.search("[:/]", value):
        value = re.sub(r"^.*@", "…@", value, flags=re.DOTALL)
        value = re.sub(r"([?#]).+", r"\1…", value, flags=re.DOTALL)
    return repr(value)


def _without_effect(settings: Settings) -> list[str]:
    pair = {"llm_base_url": settings.llm_base_url, "llm_model": settings.llm_model}
    missing = [name for name, value in pair.items() if value is None]
    if len(missing) != 1:
        return []
    (there,) = pair.keys() - missing
    return [f"{variables(there)[0]} has no effect without {variables(missing[0])[0]}"]
