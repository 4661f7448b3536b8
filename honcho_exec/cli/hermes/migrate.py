"""`migrate`: from Hermes's bundled Honcho provider to this one, and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from honcho_exec.cli.context import CliContext, command, hint, json_option, pass_cli, print_json
from honcho_exec.cli.hermes.config_yaml import config_path, hermes_line, provider_in_use, set_provider
from honcho_exec.cli.hermes.install import home_option
from honcho_exec.cli.hermes.installer import install
from honcho_exec.cli.hermes_home import environment, hermes_folder
from honcho_exec.cli.output import print_fields, print_text, stdout
from honcho_exec.errors import StateError
from honcho_exec.settings import LoadedSettings, load
from honcho_exec.storage.folders import private_folder
from honcho_exec.storage.private_file import write_atomically

__all__ = ["migrate"]

_OURS = "honcho_exec"
_NOTE = "migrated.json"
_COPY = "config.yaml.before-migration"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be changed.

    Attributes:
        home: the Hermes home.
        before, after: its memory provider before and after.
        changes: what is written, in words; empty if nothing has to be.
    """

    home: Path
    before: str
    after: str
    changes: tuple[str, ...]


@command(
    "honcho-exec migrate --from honcho              see what would change",
    "honcho-exec migrate --from honcho --apply",
    "honcho-exec migrate --undo",
)
@click.option("--from", "source", type=click.Choice(["honcho"]), help="The provider to migrate from.")
@click.option("--apply", "apply", is_flag=True, help="Make the changes; without it, only show them.")
@click.option("--undo", is_flag=True, help="Go back to the provider that was in use before.")
@home_option
@json_option
@pass_cli
def migrate(cli: CliContext, source: str | None, folder: str | None, *, apply: bool, undo: bool) -> None:
    """Move Hermes over from its bundled Honcho provider.

    Both use the same settings, workspace, peers and sessions: nothing in Honcho is changed or copied. Two things are
    written: the plugin, into Hermes's plugin folder, and `memory.provider`, by Hermes's own `config set`. If there is
    no `hermes` command, its line is printed instead. --undo restores the configuration as it was.
    """
    if undo == (source is not None) or (undo and apply):
        raise click.UsageError("give either --from honcho (and --apply, to do it), or --undo")
    home = hermes_folder(folder or cli.hermes_home)
    if undo:
        plan = _plan_back(home)
        _print(plan, None, applied=True, complete=_undo(plan), as_json=cli.as_json)
        return
    loaded = load(environment(str(home)), hermes_home=home)
    plan = _plan_over(home)
    _print(plan, loaded, applied=apply, complete=_apply(plan) if apply else True, as_json=cli.as_json)


def _plan_over(home: Path) -> _Plan:
    before = provider_in_use(home)
    if before == _OURS:
        return _Plan(home, before, _OURS, ())
    if before != "honcho":
        found = f"Hermes uses {before!r} as its memory provider" if before else "Hermes uses no memory provider"
        raise StateError(f"{found} ({home / 'config.yaml'}), not honcho; honcho-exec install says how to use this one")
    folder = home / "plugins" / _OURS
    return _Plan(home, before, _OURS, (f"the plugin is written into {folder}", _change(home, before, _OURS)))


def _plan_back(home: Path) -> _Plan:
    after = str(_note(home)["provider"])
    before = provider_in_use(home)
    return _Plan(home, before, after, () if before == after else (_change(home, before, after),))


def _apply(plan: _Plan) -> bool:
    """Make the changes, with a copy of the configuration for the way back; returns False if a line is left to run."""
    if not plan.changes:
        return True
    state, config = private_folder(plan.home / _OURS), config_path(plan.home)
    note = {"provider": plan.before}
    _write(state / _COPY, config.read_bytes())
    _write(state / _NOTE, json.dumps(note).encode())
    install(plan.home)
    if not set_provider(plan.home, plan.after):
        return False
    _write(state / _NOTE, json.dumps({**note, "config": _digest(config)}).encode())
    return True


def _undo(plan: _Plan) -> bool:
    """Restore the configuration, or only the provider if the file was changed since; see `_apply`."""
    if not plan.changes:
        return True
    copy, config = plan.home / _OURS / _COPY, config_path(plan.home)
    if not (copy.is_file() and _note(plan.home).get("config") == _digest(config)):
        return set_provider(plan.home, plan.after)
    _write(config, copy.read_bytes(), mode=config.stat().st_mode & 0o7777)
    copy.unlink()
    return True


def _note(home: Path) -> dict[str, Any]:
    """Read what `_apply` wrote down."""
    path = home / _OURS / _NOTE
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**note, "provider": note["provider"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise StateError(f"nothing was migrated in {home}: {path} is not there or cannot be read") from None


def _write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    with write_atomically(path, mode=mode) as file:
        file.write(content)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _change(home: Path, before: str, after: str) -> str:
    return f"{home / 'config.yaml'}: memory.provider: {before} becomes {after}"


def _print(plan: _Plan, loaded: LoadedSettings | None, *, applied: bool, complete: bool, as_json: bool) -> None:
    used = None if loaded is None else _used(loaded)
    line = None if complete else hermes_line(plan.home, plan.after)
    done = applied and complete
    if as_json:
        answer = {"home": str(plan.home), "provider": plan.after if done else plan.before, "before": plan.before}
        changed = {"changes": list(plan.changes), "done": done and bool(plan.changes), "next": line}
        print_json({**answer, **changed, "uses": used})
        return
    console = stdout()
    if used is not None:
        print_fields(console, [(name, value, "") for name, value in used.items()])
        console.print()
    if not plan.changes:
        print_text(console, f"Hermes uses {plan.after} already: nothing {'was' if applied else 'is'} to be changed.")
        return
    print_text(console, "Changed:" if done else "What would change:" if not applied else "What changes:")
    print_text(console, "\n".join(f"- {change}" for change in plan.changes))
    print_text(console, "\nWhat is in Honcho, honcho.json and the environment stay as they are.", style="dim")
    if line is not None:
        print_text(console, f"\nThere is no hermes command here. One line is left to run:\n\n  {line}\n")
    elif not applied:
        print_text(console, hint("\nNothing was changed. Do it with: honcho-exec migrate --from honcho --apply"))
    if applied and plan.after == _OURS:
        print_text(console, hint("\nRestart Hermes, so that it is used. Back again: honcho-exec migrate --undo"))


def _used(loaded: LoadedSettings) -> dict[str, str]:
    """Return what both providers take from the settings."""
    settings = loaded.settings
    warned = "no key and no URL is set, so the memory would be on this machine, and not where it was"
    return {
        "settings": str(loaded.file) if loaded.file else "the environment alone",
        "backend": settings.backend,
        "url": settings.shown_url,
        "workspace": settings.workspace,
        "peers": f"{settings.peer_name or 'as the host names the user'} (user), {settings.ai_peer} (assistant)",
        **({"warning": warned} if settings.backend == "embedded" and settings.base_url is None else {}),
    }
