"""Hermes's folders: a named profile's home, and the variables that Hermes keeps beside its configuration."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from honcho_exec.errors import ConfigurationError

__all__ = [
    "DOTENV",
    "HOST_PROGRAM",
    "called",
    "environment",
    "existing_home",
    "kept_variables",
    "other_memory",
    "profile_home",
]

PROGRAM = "honcho-exec"

HOST_PROGRAM = "hermes honcho_exec"
"""How the commands are called under a host's own."""

DOTENV = ".env"
"""The file in a Hermes home that Hermes puts into its environment at the start."""

_PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(HONCHO_\w+|HERMES_HONCHO_HOST)\s*=(.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)".*')
_SINGLE = re.compile(r"'([^']*)'.*")


def profile_home(name: str, hermes_home: str | None = None) -> str:
    """The home of a profile of Hermes; `default` is the folder that all profiles are in.

    Args:
        name: the profile's name, in whatever case.
        hermes_home: Hermes's folder, or another profile's home; HERMES_HOME, else ~/.hermes, when None.

    Raises:
        click.UsageError: there is no such profile; lists those that there are.
    """
    said = Path(hermes_home or os.environ.get("HERMES_HOME", "").strip() or "~/.hermes").expanduser().absolute()
    root = said.parent.parent if said.parent.name == "profiles" else said
    wanted = name.strip().lower()
    if wanted == "default":
        return str(root)
    if _PROFILE.fullmatch(wanted) and (root / "profiles" / wanted).is_dir():
        return str(root / "profiles" / wanted)
    known = ["default"]
    if (root / "profiles").is_dir():
        known += sorted(each.name for each in (root / "profiles").iterdir() if _PROFILE.fullmatch(each.name))
    raise click.UsageError(f"there is no profile {name[:80]!r} in {root}; there are: {', '.join(known)}")


def environment(hermes_home: str | None) -> Mapping[str, str]:
    """The environment as Hermes sees it from that home: what its `.env` says of Honcho beats the shell's."""
    home = hermes_home or os.environ.get("HERMES_HOME", "").strip()
    if not home:
        return os.environ
    return os.environ | kept_variables(home) | {"HERMES_HOME": home}


def kept_variables(hermes_home: str) -> dict[str, str]:
    """What the `.env` of a Hermes home says of Honcho; nothing where it cannot be read."""
    try:
        text = (Path(hermes_home).expanduser() / DOTENV).read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, RuntimeError):
        return {}
    lines = map(_ASSIGNMENT.fullmatch, text.splitlines())
    return {line[1]: _unquoted(line[2].strip()) for line in lines if line is not None}


def called() -> str:
    """Return how the running command was called, with the options that chose its home."""
    context = click.get_current_context(silent=True)
    if context is None:
        return PROGRAM
    root = context.find_root()
    home, profile = (str(root.params.get(name) or "") for name in ("hermes_home", "profile"))
    if root.info_name == HOST_PROGRAM:
        folder = Path(home)
        return f"hermes -p {folder.name} honcho_exec" if folder.parent.name == "profiles" else HOST_PROGRAM
    words = [PROGRAM, *(("--hermes-home", home) if home else ()), *(("--profile", profile) if profile else ())]
    return shlex.join(words)


def existing_home(hermes_home: str) -> str:
    """Return the folder if there is one.

    Raises:
        click.UsageError: there is none.
    """
    with suppress(OSError, RuntimeError, ValueError):
        if Path(hermes_home).expanduser().is_dir():
            return hermes_home
    raise click.UsageError(f"--hermes-home: there is no folder {hermes_home}; Hermes makes it when it first runs")


def other_memory(hermes_home: str | None) -> str | None:
    """Return what to tell about the memory in use if Hermes has another one; None if there is no other."""
    from honcho_exec.settings import state_home  # noqa: PLC0415 - it takes long to import; --help does without it

    try:
        used = state_home(environment(hermes_home), hermes_home)
        hermes = Path(os.environ.get("HERMES_HOME", "").strip() or "~/.hermes").expanduser()
        theirs = hermes / "honcho_exec"
        if not theirs.is_dir() or theirs.resolve() == used.resolve():
            return None
    except (ConfigurationError, OSError, RuntimeError, ValueError):
        # What cannot be used is told by the command.
        return None
    command = f"{PROGRAM} --hermes-home {shlex.quote(str(hermes))} …"
    return f"The memory in {used} is used; Hermes's own is in {theirs} ({command})."


def _unquoted(value: str) -> str:
    if quoted := _DOUBLE.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if quoted := _SINGLE.fullmatch(value):
        return quoted[1]
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
