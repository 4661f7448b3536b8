"""`migrate`: from Hermes's bundled Honcho provider to this one, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from honcho_exec.cli.context import CliContext, command, hint, json_option, pass_cli, print_json
from honcho_exec.cli.hermes import config_yaml
from honcho_exec.cli.hermes.config_yaml import read_provider, replace_file, rewritten, write_provider
from honcho_exec.cli.hermes.install import hermes_folder, home_option
from honcho_exec.cli.hermes.installer import install
from honcho_exec.cli.hermes_home import environment
from honcho_exec.cli.output import print_fields, print_text, stdout
from honcho_exec.errors import StateError
from honcho_exec.settings import LoadedSettings, load
from honcho_exec.storage.folders import private_folder

__all__ = ["migrate"]

_OURS = "honcho_exec"
_NOTE = "migrated.json"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is so now, and what changes.

    Attributes:
        home: Hermes's folder.
        now, then: its memory provider before and after.
        changes: what is written, in words; empty when nothing is.
    """

    home: Path
    now: str
    then: str
    changes: tuple[str, ...]


@command(
    "honcho-exec migrate --from honcho",
    "honcho-exec migrate --from honcho --apply",
    "honcho-exec migrate --undo",
)
@click.option("--from", "source", type=click.Choice(["honcho"]), help="Which provider to move over from.")
@click.option("--apply", "apply", is_flag=True, help="Do it; without this, only say what would change.")
@click.option("--undo", is_flag=True, help="Switch back to the provider that was in use before.")
@home_option
@json_option
@pass_cli
def migrate(cli: CliContext, source: str | None, folder: str | None, *, apply: bool, undo: bool) -> None:
    """Move Hermes over from its bundled Honcho provider.

    The same settings, workspace, peers and sessions are used: nothing that is in Honcho is touched, and nothing has to
    be copied. Only Hermes's plugin folder and one line of its configuration change.
    """
    if undo == (source is not None) or (undo and apply):
        raise click.UsageError("give either --from honcho (and --apply, to do it), or --undo")
    home = hermes_folder(cli, folder)
    if undo:
        plan = _back(home)
        _switch(plan)
        _tell(plan, None, done=True, as_json=cli.as_json)
        return
    loaded = _settings(home)
    plan = _over(home)
    if apply:
        _switch(plan)
    _tell(plan, loaded, done=apply, as_json=cli.as_json)


def _settings(home: Path) -> LoadedSettings:
    return load(environment(str(home)), hermes_home=home)


def _over(home: Path) -> _Plan:
    now = config_yaml.read_provider(home)
    if now == _OURS:
        return _Plan(home, now, _OURS, ())
    if not now and config_yaml.may_name(home, "honcho"):
        raise config_yaml.not_understood(home, _OURS)
    if now != "honcho":
        said = f"Hermes uses {now!r} as its memory provider" if now else "Hermes uses no memory provider"
        raise StateError(f"{said} ({home / 'config.yaml'}), not honcho; honcho-exec install says how to use this one")
    # What cannot be done is said before anything is.
    config_yaml.rewritten(home, _OURS)
    folder = home / "plugins" / _OURS
    return _Plan(home, now, _OURS, (f"the plugin is copied into {folder}", _line(home, now, _OURS)))


def _back(home: Path) -> _Plan:
    try:
        before = str(json.loads(_note(home).read_text(encoding="utf-8"))["provider"])
    except (OSError, ValueError, KeyError, TypeError):
        raise StateError(f"nothing was migrated in {home}: {_note(home)} is not there or cannot be read") from None
    now = read_provider(home)
    if now == before:
        return _Plan(home, now, before, ())
    rewritten(home, before)
    return _Plan(home, now, before, (_line(home, now, before),))


def _switch(plan: _Plan) -> None:
    """Do what the plan says; the way back is written down before anything is changed."""
    if not plan.changes:
        return
    if plan.then == _OURS:
        private_folder(_note(plan.home).parent)
        replace_file(_note(plan.home), json.dumps({"provider": plan.now}).encode())
        install(plan.home)
    write_provider(plan.home, plan.then)


def _note(home: Path) -> Path:
    return home / _OURS / _NOTE


def _line(home: Path, now: str, then: str) -> str:
    return f"{home / 'config.yaml'}: memory.provider: {now} becomes {then}"


def _tell(plan: _Plan, loaded: LoadedSettings | None, *, done: bool, as_json: bool) -> None:
    used = None if loaded is None else _used(loaded)
    if as_json:
        answer = {"home": str(plan.home), "provider": plan.then if done else plan.now, "before": plan.now}
        print_json({**answer, "changes": list(plan.changes), "done": done and bool(plan.changes), "uses": used})
        return
    console = stdout()
    if used is not None:
        print_fields(console, [(name, value, "") for name, value in used.items()])
        console.print()
    if not plan.changes:
        print_text(console, f"Hermes uses {plan.then} already: nothing {'was' if done else 'is'} to be changed.")
        return
    print_text(console, "Changed:" if done else "What would change:")
    print_text(console, "\n".join(f"- {change}" for change in plan.changes))
    print_text(console, "\nWhat is in Honcho, honcho.json and the environment stay as they are.", style="dim")
    if not done:
        print_text(console, hint("\nNothing was changed. Do it with: honcho-exec migrate --from honcho --apply"))
    elif plan.then == _OURS:
        print_text(console, hint("\nRestart Hermes, so that it is used. Back again: honcho-exec migrate --undo"))


def _used(loaded: LoadedSettings) -> dict[str, str]:
    """What both providers take from the same settings."""
    settings = loaded.settings
    warned = "no key and no URL is set, so memory would be on this machine, and not where it was"
    return {
        "settings": str(loaded.file) if loaded.file else "the environment alone",
        "backend": settings.backend,
        "url": settings.shown_url,
        "workspace": settings.workspace,
        "peers": f"{settings.peer_name or 'as the host names the user'} (user), {settings.ai_peer} (assistant)",
        **({"warning": warned} if settings.backend == "embedded" and settings.base_url is None else {}),
    }
