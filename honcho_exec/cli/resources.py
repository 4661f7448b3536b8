"""What commands work with, opened and closed: settings, provider, outbox, memory and server."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from honcho_exec.cli.context import CliContext, printable
from honcho_exec.cli.hermes_home import PROGRAM, environment, hermes_folder
from honcho_exec.client.backend import open_backend, open_model
from honcho_exec.client.rest import RawApi
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import ConfigurationError, StateError
from honcho_exec.net.oauth.grant_file import GrantFile
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.settings import LoadedSettings, load, state_home

__all__ = ["MEMORY_FILE", "load_settings", "open_memory", "open_outbox", "open_provider", "open_server"]

MEMORY_FILE = "memory.db"


def load_settings(cli: CliContext) -> LoadedSettings:
    """Load the settings of the Hermes home in use.

    Raises:
        ConfigurationError: the settings cannot be used.
    """
    return load(environment(cli.hermes_home), hermes_home=cli.hermes_home)


@contextmanager
def open_provider(cli: CliContext, *, writes: bool = True) -> Iterator[HonchoProvider]:
    """Open a provider; a problem with its settings shows in its status and answers.

    Args:
        cli: names the Hermes home.
        writes: False creates no session, peers or workspace; rows of an earlier process are still delivered.
    """
    _print_memory_in_use(cli)
    provider = HonchoProvider(environ=environment(cli.hermes_home))
    provider.initialize(hermes_home=cli.hermes_home, agent_context="" if writes else "read")
    try:
        yield provider
    except KeyboardInterrupt:
        # A person who interrupts does not wait for a delivery that can happen later.
        provider.shutdown(0.0)
        raise
    finally:
        provider.shutdown()


@contextmanager
def open_outbox(cli: CliContext) -> Iterator[Outbox]:
    """Open the outbox of the settings; nothing is delivered meanwhile."""
    _print_memory_in_use(cli)
    with HonchoProvider(environ=environment(cli.hermes_home)).outbox() as outbox:
        yield outbox


@contextmanager
def open_memory(cli: CliContext, *, create: bool = False, with_model: bool = False) -> Iterator[EmbeddedHoncho]:
    """Open the embedded Honcho of the state folder, whichever backend the settings choose.

    Args:
        cli: names the Hermes home.
        create: create the file if there is none.
        with_model: let the language model of the settings answer questions.

    Raises:
        ConfigurationError: the settings cannot be used.
        StateError: the file does not exist and `create` is False, or it cannot be used.
    """
    _print_memory_in_use(cli)
    path = state_home(environment(cli.hermes_home), cli.hermes_home) / MEMORY_FILE
    if not create and not path.exists():
        raise StateError(f"there is no memory on this machine at {path}")
    model = open_model(load_settings(cli).settings, SystemClock()) if with_model else None
    honcho = EmbeddedHoncho(path, model=model)
    try:
        yield honcho
    finally:
        honcho.close()


@contextmanager
def open_server(loaded: LoadedSettings) -> Iterator[RawApi]:
    """Open the server of the settings, with all of its workspaces; makes no request."""
    backend = open_backend(loaded.settings, Path(), SystemClock(), GrantFile.of(loaded))
    try:
        yield RawApi(backend)
    finally:
        backend.close()


def _print_memory_in_use(cli: CliContext) -> None:
    """Print once, on stderr, which state folder is in use if Hermes has another one."""
    if not cli.memory_named and (other := _other_memory(cli.hermes_home)) is not None:
        cli.memory_named = True
        click.echo(printable(other), err=True)


def _other_memory(hermes_home: str | None) -> str | None:
    try:
        used = state_home(environment(hermes_home), hermes_home)
        hermes = hermes_folder()
        theirs = hermes / "honcho_exec"
        if not theirs.is_dir() or theirs.resolve() == used.resolve():
            return None
    except (ConfigurationError, OSError, RuntimeError, ValueError):
        # The command itself reports a folder that cannot be used.
        return None
    command = f"{PROGRAM} --hermes-home {shlex.quote(str(hermes))} …"
    return f"The memory in {used} is used; Hermes's own is in {theirs} ({command})."
