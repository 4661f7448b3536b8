"""Install the plugin where Hermes Agent looks for it, and remove it; works without Hermes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from honcho_exec.cli.hermes.config_yaml import read_provider
from honcho_exec.cli.hermes.dashboard import schema_source
from honcho_exec.errors import StateError
from honcho_exec.storage.private_file import write_atomically

__all__ = ["Installed", "install", "uninstall"]

_NAME = "honcho_exec"
_SOURCE = Path(__file__).parents[2] / "hermes" / "plugin"
_SCHEMA = "config_schema.py"
# Written in this order and removed in the reverse one: `__init__.py` is what makes a folder a provider to Hermes.
_FILES = ("plugin.yaml", _SCHEMA, "cli.py", "__init__.py")
# One of these texts is in each file, whichever version installed it.
_MARKS = {
    "plugin.yaml": ("name: honcho_exec",),
    _SCHEMA: ('name="honcho_exec"',),
    "cli.py": ("from honcho_exec.cli.host import",),
    "__init__.py": ("from honcho_exec.hermes.adapter import", "from honcho_exec.hermes.shell import"),
}


@dataclass(frozen=True, slots=True)
class Installed:
    """The result of installing or uninstalling.

    Attributes:
        folder: the folder where Hermes looks for the plugin.
        changed: False if nothing had to be done.
        active: whether Hermes's `config.yaml` has `memory.provider: honcho_exec`.
    """

    folder: Path
    changed: bool
    active: bool


def install(hermes_home: Path) -> Installed:
    """Write the plugin into `hermes_home`, or update an older copy; idempotent.

    Hermes never finds half a plugin.

    Raises:
        StateError: the folder has other files, or cannot be written.
    """
    folder = _folder(hermes_home)
    changed = False
    with _explained(folder):
        _refuse_others(folder)
        if folder.exists() and any(folder.iterdir()) and not _ours(folder):
            raise StateError(f"{folder} holds something else than this plugin; move it away first")
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            content = schema_source().encode() if name == _SCHEMA else (_SOURCE / name).read_bytes()
            target = folder / name
            if not target.is_file() or target.read_bytes() != content:
                with write_atomically(target, mode=0o644) as file:
                    file.write(content)
                changed = True
    return Installed(folder, changed, _active(hermes_home))


def uninstall(hermes_home: Path) -> Installed:
    """Remove the files of `install` and Python's cache of them; idempotent.

    Other files in the folder stay, and so does the memory.

    Raises:
        StateError: the folder is another plugin, or cannot be changed.
    """
    folder = _folder(hermes_home)
    with _explained(folder):
        _refuse_others(folder)
        ours = _ours(folder)
        for path in ours:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if ours and not any(folder.iterdir()):
            folder.rmdir()
    return Installed(folder, bool(ours), _active(hermes_home))


def _folder(hermes_home: Path) -> Path:
    return hermes_home.expanduser() / "plugins" / _NAME


def _refuse_others(folder: Path) -> None:
    """Raise if the path is another plugin, a link or no folder."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StateError(f"{folder} is not a folder of this plugin; move it away first")
    for name, marks in _MARKS.items():
        path = folder / name
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if not any(mark in text for mark in marks):
            raise StateError(f"{folder} holds another plugin ({name} is not this one's); move it away first")


def _ours(folder: Path) -> list[Path]:
    """Return the files of `install`, even if it was interrupted, and Python's cache of them."""
    if not folder.exists():
        return []
    copied = [folder / name for name in reversed(_FILES)]
    return [path for path in (*copied, *folder.glob(".*.new"), folder / "__pycache__") if path.exists()]


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"{folder} cannot be changed: {error.strerror or error}") from error


def _active(hermes_home: Path) -> bool:
    return read_provider(hermes_home) == _NAME
