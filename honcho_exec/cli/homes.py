"""Hermes's folders: a named profile's home, and the variables that Hermes keeps beside its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import click

__all__ = ["DOTENV", "environment", "kept_variables", "profile_home"]

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


def _unquoted(value: str) -> str:
    if quoted := _DOUBLE.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if quoted := _SINGLE.fullmatch(value):
        return quoted[1]
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
