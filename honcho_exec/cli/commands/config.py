"""`config`: show each setting with its source and meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import BaseModel, SecretStr
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from honcho_exec.cli.context import WRONG_USE, CliContext, command, json_option, pass_cli, print_json, printable
from honcho_exec.cli.hermes_home import DOTENV, chosen_home, dotenv_variables, environment
from honcho_exec.cli.output import print_fields, stdout
from honcho_exec.errors import ConfigurationError
from honcho_exec.model import SessionRef
from honcho_exec.settings import LoadedSettings, Settings, extra, load, state_home, variables
from honcho_exec.settings.identity import HostContext, resolve
from honcho_exec.settings.schema import without_password

__all__ = ["config"]

_MASK = "********"
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class _Shown:
    """One setting; `value` is JSON and holds no secret."""

    value: object
    unit: str
    source: str
    variables: tuple[str, ...]
    meaning: str

    @property
    def text(self) -> str:
        """The value as text."""
        if self.value is None or self.value in ("", {}, []):
            return "-"
        match self.value:
            case str():
                shown = self.value
            case float():
                shown = f"{self.value:g}"
            case _:
                shown = json.dumps(self.value, ensure_ascii=False)
        return f"{shown} {self.unit}".rstrip()


@command(
    "honcho-exec config",
    "honcho-exec --profile coder config",
    "honcho-exec config --json | jq .settings.timeout.value",
)
@json_option
@pass_cli
@click.pass_context
def config(ctx: click.Context, cli: CliContext) -> None:
    """Show each setting: its value, where it comes from, its meaning.

    Also shows the workspace, peers and session of this directory. Makes no request and changes nothing; keys and
    passwords are masked. Exits with 2 if settings cannot be used, and names all of them.
    """
    try:
        loaded, state = _load(cli)
    except ConfigurationError as error:
        ctx.exit(_print_problems(error, as_json=cli.as_json))
    shown = _settings(loaded, _kept(cli))
    ref = _resolved(loaded, cli)
    where = {
        "backend": loaded.settings.backend,
        "url": loaded.settings.shown_url,
        "workspace": ref.workspace,
        "user_peer": ref.user_peer,
        "ai_peer": ref.ai_peer,
        "session": ref.session,
        "host": loaded.host,
        "file": None if loaded.file is None else str(loaded.file),
        "state": str(state),
    }
    if cli.as_json:
        rows = {
            name: {
                "value": setting.value,
                "unit": setting.unit or None,
                "source": setting.source,
                "variables": setting.variables,
                "meaning": setting.meaning,
            }
            for name, setting in shown.items()
        }
        print_json({**where, "warnings": loaded.warnings, "settings": rows})
        return
    console = stdout(widest=160)
    print_fields(console, [(label.replace("_", " "), value or "none", "") for label, value in where.items()])
    print_fields(console, [("warning", warning, "yellow") for warning in loaded.warnings])
    _table(console, shown)


def _load(cli: CliContext) -> tuple[LoadedSettings, Path]:
    """Load the settings and find the state folder; an error names all problems of both."""
    environ = environment(cli.hermes_home)
    problems: list[str] = []
    try:
        state = state_home(environ, cli.hermes_home)
    except ConfigurationError as error:
        problems += error.problems
    try:
        loaded = load(environ, hermes_home=cli.hermes_home)
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(*dict.fromkeys(problems))
    return loaded, state


def _resolved(loaded: LoadedSettings, cli: CliContext) -> SessionRef:
    """Return the identity of a conversation that began in this directory."""
    try:
        here = str(Path.cwd())
    except OSError:
        # The directory was removed.
        here = ""
    return resolve(loaded.settings, HostContext(cwd=here), environment(cli.hermes_home))


def _print_problems(error: ConfigurationError, *, as_json: bool) -> int:
    """Print each problem on its own line, or all as JSON; return the exit code."""
    if as_json:
        print_json({"error": str(error), "cause": error.cause, "retryable": False, "problems": error.problems})
    for problem in () if as_json else error.problems:
        click.echo(f"Error: {printable(problem)}", err=True)
    return WRONG_USE


def _settings(loaded: LoadedSettings, kept: Mapping[str, str]) -> dict[str, _Shown]:
    """Return every setting by its key in the file."""
    shown = {}
    for name, field in Settings.model_fields.items():
        source = loaded.sources.get(name, _DEFAULT)
        shown[to_camel(name)] = _Shown(
            value=_masked(getattr(loaded.settings, name)),
            unit=extra(name)["unit"],
            source=kept.get(source, source),
            variables=variables(name),
            meaning=field.description or "",
        )
    return shown


def _kept(cli: CliContext) -> dict[str, str]:
    """Return for each variable in Hermes's `.env` where it is."""
    home = chosen_home(cli.hermes_home)
    return {name: f"{name} in {Path(home) / DOTENV}" for name in dotenv_variables(home)} if home else {}


def _masked(value: object) -> object:
    """Return a value as JSON, with secrets masked."""
    match value:
        case SecretStr():
            return _MASK
        case str():
            return without_password(value)
        case BaseModel():
            return value.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
        case tuple():
            return list(value)
    return value


def _table(console: Console, shown: Mapping[str, _Shown]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, share in (("setting", None), ("value", 2), ("source", 2), ("meaning", 4)):
        table.add_column(title, ratio=share if console.is_terminal else None, overflow="fold")
    for name, setting in shown.items():
        style = "dim" if setting.source == _DEFAULT else ""
        table.add_row(
            *(Text(printable(cell), style=style) for cell in (name, setting.text, setting.source)),
            Text(printable(setting.meaning)),
        )
    console.print()
    console.print(table)
