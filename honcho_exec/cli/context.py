"""What every command shares: the host's folder, the provider's lifetime, and how an error is told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from honcho_exec.cli.hermes_home import called, environment, other_memory
from honcho_exec.cli.output import plain
from honcho_exec.errors import HonchoExecError, StateError

if TYPE_CHECKING:
    # They take long to import; --help does without them.
    from honcho_exec.client.rest import RawApi
    from honcho_exec.embedded import EmbeddedHoncho
    from honcho_exec.outbox.outbox import Outbox
    from honcho_exec.provider.provider import HonchoProvider
    from honcho_exec.provider.status import Finding
    from honcho_exec.settings import LoadedSettings

__all__ = [
    "SECONDS",
    "Run",
    "Taught",
    "TaughtGroup",
    "command",
    "hint",
    "json_option",
    "lent",
    "memory",
    "opened",
    "pass_run",
    "print_json",
    "reached",
    "tell_error",
    "with_hints",
]

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
MEMORY = "memory.db"
_YEAR_SECONDS = 365 * 86_400.0
# A command of ours in a text; one with an option names its own home.
_PROGRAM = re.compile(r"\bhoncho-exec(?= [a-z])")


@dataclass(slots=True)
class Run:
    """One run of the command line.

    Attributes:
        hermes_home: the host's folder, None where it was not named.
        as_json: whether the answer is JSON.
        told: whether it was said which memory is in use.
    """

    hermes_home: str | None = None
    as_json: bool = False
    told: bool = False


class _Seconds(click.FloatRange):
    """A positive number of seconds that can be waited for."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no number, which is in every range."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


SECONDS = _Seconds(0, _YEAR_SECONDS, min_open=True)
"""The type of an option for how long to wait: more than nothing, and at most a year."""


class Taught(click.Command):
    """A command whose help ends with examples, which are shown as they stand."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's contract
        """Write the examples."""
        with formatter.section("Examples"):
            for example in map(hint, self.examples):
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class TaughtGroup(Taught, click.Group):
    """A group whose help ends with examples, and that lists its commands in the order in which they are met."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's contract
        """Name the commands."""
        return list(self.commands)


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command whose help ends with `examples`."""
    return click.command(cls=Taught, examples=examples)


pass_run = click.make_pass_decorator(Run, ensure=True)


def _answer_in_json(context: click.Context, _: click.Parameter, chosen: bool) -> None:
    context.ensure_object(Run).as_json = chosen


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_answer_in_json, help="Answer with JSON on stdout."
)


def hint(told: str) -> str:
    """Return a text of ours with every `honcho-exec` in it as the command was called, so that it works as printed."""
    return _PROGRAM.sub(lambda _: called(), told)


def with_hints(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings whose advice works as printed; see `hint`."""
    return tuple(replace(finding, advice=hint(finding.advice)) for finding in findings)


def tell_memory(run: Run) -> None:
    """Say once, on stderr, which state folder is in use if Hermes has another one."""
    if not run.told and (other := other_memory(run.hermes_home)) is not None:
        run.told = True
        click.echo(plain(other), err=True)


@contextmanager
def opened(run: Run, *, writes: bool = True) -> Iterator[HonchoProvider]:
    """A provider as the settings make it; trouble with them shows in its status and answers.

    Args:
        run: which folder.
        writes: False creates no session, peers or workspace; what an earlier process accepted is still delivered.
    """
    from honcho_exec.provider.provider import HonchoProvider  # noqa: PLC0415 - see TYPE_CHECKING

    tell_memory(run)
    provider = HonchoProvider(environ=environment(run.hermes_home))
    provider.initialize(hermes_home=run.hermes_home, agent_context="" if writes else "read")
    try:
        yield provider
    except KeyboardInterrupt:
        # Nobody who interrupts waits for what can be delivered later.
        provider.shutdown(0.0)
        raise
    finally:
        provider.shutdown()


@contextmanager
def lent(run: Run) -> Iterator[Outbox]:
    """The outbox as the settings choose it; nothing is delivered meanwhile."""
    from honcho_exec.provider.provider import HonchoProvider  # noqa: PLC0415 - see TYPE_CHECKING

    tell_memory(run)
    with HonchoProvider(environ=environment(run.hermes_home)).outbox() as outbox:
        yield outbox


@contextmanager
def memory(run: Run, *, make: bool = False, answers: bool = False) -> Iterator[EmbeddedHoncho]:
    """The embedded Honcho of the state folder, whichever Honcho the settings choose.

    Args:
        run: which folder.
        make: begin one where there is none.
        answers: let the language model that the settings name answer questions.

    Raises:
        ConfigurationError: the settings cannot be used.
        StateError: there is none and `make` does not say to begin one, or its file cannot be used.
    """
    from honcho_exec.client.backend import open_model  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.clock import SystemClock  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.embedded import EmbeddedHoncho  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.settings import load, state_home  # noqa: PLC0415 - see TYPE_CHECKING

    tell_memory(run)
    environ = environment(run.hermes_home)
    path = state_home(environ, run.hermes_home) / MEMORY
    if not make and not path.exists():
        raise StateError(f"there is no memory on this machine at {path}")
    model = open_model(load(environ, hermes_home=run.hermes_home).settings, SystemClock()) if answers else None
    honcho = EmbeddedHoncho(path, model=model)
    try:
        yield honcho
    finally:
        honcho.close()


@contextmanager
def reached(loaded: LoadedSettings) -> Iterator[RawApi]:
    """The server that the settings choose, over all of its workspaces; makes no request."""
    from honcho_exec.client.backend import open_backend  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.client.rest import RawApi  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.clock import SystemClock  # noqa: PLC0415 - see TYPE_CHECKING
    from honcho_exec.net.oauth.grant_file import GrantFile  # noqa: PLC0415 - see TYPE_CHECKING

    backend = open_backend(loaded.settings, Path(), SystemClock(), GrantFile.of(loaded))
    try:
        yield RawApi(backend)
    finally:
        backend.close()


def print_json(answer: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(_finite(answer), ensure_ascii=False, allow_nan=False))


def _finite(value: object) -> object:
    """A JSON value without NaN and infinity, which are no JSON: null in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def tell_error(error: HonchoExecError, *, as_json: bool) -> int:
    """Tell an error, on stderr or as JSON on stdout, and return the exit code that goes with it."""
    if as_json:
        print_json({"error": hint(str(error)), "cause": error.cause, "retryable": error.retryable})
    else:
        click.echo(f"Error: {plain(hint(str(error)))}", err=True)
    return WRONG_USE if error.cause == "argument" else FAILED
