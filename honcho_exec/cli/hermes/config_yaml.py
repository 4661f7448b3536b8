"""`memory.provider` in Hermes's `config.yaml`: read here, and changed by Hermes's own `config set`.

It is read without Hermes and without a YAML library, in the two forms in which Hermes and people write it: `memory:` as
a block, or within braces.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from honcho_exec.cli.hermes_home import hermes_folder
from honcho_exec.errors import StateError

__all__ = ["config_path", "find_hermes", "hermes_line", "provider_in_use", "read_provider", "set_provider"]

_SETTING = "memory.provider"
_TIMEOUT_SECONDS = 120
_PROVIDER = re.compile(r"""["']?provider["']?\s*:\s*["']?(?P<value>[\w.-]*)["']?$""")
_PROVIDER_INLINE = re.compile(r"""[{,]\s*["']?provider["']?\s*:\s*["']?(?P<value>[\w.-]*)["']?\s*[,}]""")
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


def config_path(hermes_home: Path) -> Path:
    """Return the path of Hermes's configuration, links followed."""
    return (hermes_home / "config.yaml").resolve()


def read_provider(hermes_home: Path) -> str:
    """Read the memory provider without Hermes; empty if there is none, or it is written in another form."""
    try:
        text = config_path(hermes_home.expanduser()).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
    block: list[str] = []
    inside = False
    for line in filter(str.strip, _COMMENT.sub("", text).splitlines()):
        key, _, value = line.partition(":")
        if not line.startswith((" ", "\t")):
            inside = key.strip().strip("\"'") == "memory"
            block = [value] if inside else block
        elif inside:
            block.append(line)
    return _provider_of(block)


def provider_in_use(hermes_home: Path) -> str:
    """Return the memory provider that Hermes uses, which is asked if the file is not a plain one."""
    script = find_hermes()
    found = read_provider(hermes_home)
    if found or script is None or not config_path(hermes_home).exists():
        return found
    return _run(script, hermes_home, "get", _SETTING)


def set_provider(hermes_home: Path, provider: str) -> bool:
    """Let Hermes write another memory provider into its configuration.

    Returns:
        False if there is no Hermes to do it: the person has to run `hermes_line`.

    Raises:
        StateError: Hermes did not change it; says why.
    """
    if (script := find_hermes()) is None:
        return False
    printed = _run(script, hermes_home, "set", _SETTING, provider)
    if read_provider(hermes_home) != provider:
        raise StateError(f"Hermes did not set {_SETTING} to {provider}: {printed[-200:] or 'it says nothing'}")
    return True


def find_hermes() -> str | None:
    """Return the path of Hermes's command, the one of this Python first."""
    own = Path(sys.executable).with_name("hermes")
    return str(own) if own.is_file() else shutil.which("hermes")


def hermes_line(hermes_home: Path, provider: str | None) -> str:
    """Return the line with which a person sets the memory provider, or removes it with None."""
    is_default = hermes_home == hermes_folder()
    hermes = "hermes" if is_default else f"HERMES_HOME={shlex.quote(str(hermes_home))} hermes"
    return f"{hermes} config unset {_SETTING}" if provider is None else f"{hermes} config set {_SETTING} {provider}"


def _run(script: str, hermes_home: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - Hermes's own command
            [script, "config", *arguments],
            env=os.environ | {"HERMES_HOME": str(hermes_home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateError(f"{script} cannot be run: {error}") from error
    if done.returncode:
        raise StateError(f"hermes config {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()


def _provider_of(block: list[str]) -> str:
    """Return the value of `provider` in the lines of a block; the first line is the rest of the key's line."""
    if not block:
        return ""
    depth = min((len(line) - len(line.lstrip()) for line in block[1:]), default=0)
    for line in block[1:]:
        if len(line) - len(line.lstrip()) == depth and (found := _PROVIDER.match(line.strip())):
            return found["value"]
    inline = "".join(block).strip()
    found = _PROVIDER_INLINE.search(inline) if inline.startswith("{") else None
    return found["value"] if found else ""
