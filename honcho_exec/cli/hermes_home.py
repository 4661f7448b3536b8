"""Find the Hermes home, the homes of its profiles, and the variables in their `.env`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

__all__ = [
    "DOTENV",
    "HOST_PROGRAM",
    "chosen_home",
    "dotenv_variables",
    "environment",
    "existing_home",
    "hermes_folder",
    "profile_home",
    "program_name",
]

PROGRAM = "honcho-exec"

HOST_PROGRAM = "hermes honcho_exec"
"""How the commands are called through Hermes."""

DOTENV = ".env"
"""The file in a Hermes home whose variables Hermes adds to its environment."""

_PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(HONCHO_\w+|HERMES_HONCHO_HOST)\s*=(.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)".*')
_SINGLE = re.compile(r"'([^']*)'.*")


def chosen_home(hermes_home: str | None = None) -> str:
    """Return the Hermes home that was named, else HERMES_HOME; empty if there is neither."""
    return hermes_home or os.environ.get("HERMES_HOME", "").strip()


def hermes_folder(hermes_home: str | None = None) -> Path:
    """Return the Hermes home that was named, else HERMES_HOME, else ~/.hermes."""
    return Path(chosen_home(hermes_home) or "~/.hermes").expanduser().absolute()


def profile_home(name: str, hermes_home: str | None = None) -> str:
    """Return the home of a Hermes profile; that of `default` holds all profiles.

    Args:
        name: the profile's name, in any case.
        hermes_home: the Hermes home, or that of another profile; see `hermes_folder`.

    Raises:
        click.UsageError: the profile does not exist; lists the existing ones.
    """
    folder = hermes_folder(hermes_home)
    root = folder.parent.parent if folder.parent.name == "profiles" else folder
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
    """Return the environment as Hermes has it: Honcho's variables in the home's `.env` beat those of the shell."""
    home = chosen_home(hermes_home)
    if not home:
        return os.environ
    return os.environ | dotenv_variables(home) | {"HERMES_HOME": home}


def dotenv_variables(hermes_home: str) -> dict[str, str]:
    """Return Honcho's variables in the `.env` of a Hermes home; none if it cannot be read."""
    try:
        text = (Path(hermes_home).expanduser() / DOTENV).read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, RuntimeError):
        return {}
    lines = map(_ASSIGNMENT.fullmatch, text.splitlines())
    return {line[1]: _unquoted(line[2].strip()) for line in lines if line is not None}


def program_name() -> str:
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
    """Return the home if the folder exists.

    Raises:
        click.UsageError: it does not exist.
    """
    with suppress(OSError, RuntimeError, ValueError):
        if Path(hermes_home).expanduser().is_dir():
            return hermes_home
    raise click.UsageError(f"--hermes-home: there is no folder {hermes_home}; Hermes makes it when it first runs")


def _unquoted(value: str) -> str:
    if quoted := _DOUBLE.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if quoted := _SINGLE.fullmatch(value):
        return quoted[1]
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
