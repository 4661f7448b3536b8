"""Options that are numbers refuse what cannot be used, whichever command they are given to."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from support.commands import Cli

from honcho_exec.cli.main import main

NUMBERS = (click.types.IntParamType, click.types.FloatParamType)
REFUSED = ["nan", "-nan", "1e400", "-inf", "infinity", "-1", "1" + "0" * 30, "1e30", "ten", ""]


def options(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command with each of its options that is a number."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from options(command, *names, name)
        else:
            yield from (((*names, name), each.opts[0]) for each in command.params if _is_option_of_number(each))


def _is_option_of_number(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and isinstance(parameter.type, NUMBERS)


@pytest.mark.parametrize("number", REFUSED)
def test_number_that_cannot_be_used_is_refused(cli: Cli, number: str) -> None:
    found = list(options(main))
    assert {"--timeout", "--limit", "--port"} <= {option for _, option in found}
    for command, option in found:
        done = cli(*command, option, number)
        assert done.exit_code == 2, (command, option, done.output)
        assert f"Invalid value for '{option}'" in done.stderr
