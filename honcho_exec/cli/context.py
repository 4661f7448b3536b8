"""What every command shares: its options, its help, JSON answers and how an error is printed.

Imports nothing that takes long: `--help` shows without it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from honcho_exec.cli.hermes_home import program_name
from honcho_exec.errors import HonchoExecError

__all__ = [
    "SECONDS",
    "CliContext",
    "CommandWithExamples",
    "GroupWithExamples",
    "command",
    "hint",
    "json_option",
    "pass_cli",
    "print_error",
    "print_json",
    "printable",
]

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
_YEAR_SECONDS = 365 * 86_400.0
# One of our commands in a text; one with options names its own home.
_PROGRAM = re.compile(r"\bhoncho-exec(?= [a-z])")
# Stored text may hold anything, and a terminal obeys escape sequences.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class CliContext:
    """One call of the command line.

    Attributes:
        hermes_home: the Hermes home that was named, None if none was.
        as_json: whether the answer is JSON.
        memory_named: whether the memory in use was printed.
    """

    hermes_home: str | None = None
    as_json: bool = False
    memory_named: bool = False


class _Seconds(click.FloatRange):
    """A positive number of seconds that can be waited for."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert, and refuse NaN, which is in every range."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


SECONDS = _Seconds(0, _YEAR_SECONDS, min_open=True)
"""The type of an option for a time to wait: more than 0 s, at most a year."""


class CommandWithExamples(click.Command):
    """A command whose help ends with examples, printed as they are."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's contract
        """Write the examples."""
        with formatter.section("Examples"):
            for example in map(hint, self.examples):
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class GroupWithExamples(CommandWithExamples, click.Group):
    """A group whose help ends with examples, with its commands in the order of their registration."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's contract
        """Name the commands."""
        return list(self.commands)


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command whose help ends with `examples`."""
    return click.command(cls=CommandWithExamples, examples=examples)


pass_cli = click.make_pass_decorator(CliContext, ensure=True)


def _answer_in_json(context: click.Context, _: click.Parameter, chosen: bool) -> None:
    context.ensure_object(CliContext).as_json = chosen


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_answer_in_json, help="Answer with JSON on stdout."
)


def hint(text: str) -> str:
    """Replace `honcho-exec` in a text with the command line that was called, so that its commands work as printed."""
    return _PROGRAM.sub(lambda _: program_name(), text)


def printable(text: str) -> str:
    """Return a text without the control characters that a terminal obeys."""
    return _CONTROL.sub("", text)


def print_json(answer: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(_finite(answer), ensure_ascii=False, allow_nan=False))


def _finite(value: object) -> object:
    """Replace NaN and infinity, which JSON does not have, with null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def print_error(error: HonchoExecError, *, as_json: bool) -> int:
    """Print an error, on stderr or as JSON on stdout, and return its exit code."""
    if as_json:
        print_json({"error": hint(str(error)), "cause": error.cause, "retryable": error.retryable})
    else:
        click.echo(f"Error: {printable(hint(str(error)))}", err=True)
    return WRONG_USE if error.cause == "argument" else FAILED
