"""`export` and `import`: this machine's memory as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from honcho_exec.cli.context import CliContext, command, json_option, pass_cli, print_json
from honcho_exec.cli.output import print_text, progress_bar, stdout
from honcho_exec.cli.resources import load_settings, open_memory
from honcho_exec.client.api import SOURCE_KEY
from honcho_exec.embedded.wire import ApiError, parse_json
from honcho_exec.errors import InputError
from honcho_exec.storage.private_file import write_atomically
from honcho_exec.text.redaction import redact_json, redact_key
from honcho_exec.transfer.importer import Progress
from honcho_exec.transfer.sources import InputFile, NothingToRead

__all__ = ["PLURALS", "counted", "export", "import_", "redacted"]

PLURALS = {
    "workspace": "workspaces",
    "peer": "peers",
    "session": "sessions",
    "message": "messages",
    "conclusion": "conclusions",
    "card": "cards",
}
"""The plural of each kind of records."""

_TEXTS = ("content", "lines", "metadata", "configuration")
"""The fields of a record with text of a person or a model."""


@command(
    "honcho-exec export memory.jsonl",
    "honcho-exec export - | gzip > memory.jsonl.gz",
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@pass_cli
def export(cli: CliContext, file: str) -> None:
    """Write this machine's memory to a file of JSON lines.

    Writes everything that the embedded Honcho has, of all workspaces; `-` is stdout. `import` reads it.
    """
    with open_memory(cli) as honcho, _private(file) as out:
        for record in honcho.export():
            out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


@command(
    "honcho-exec import memory.jsonl",
    "zcat memory.jsonl.gz | honcho-exec import - --json",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@json_option
@pass_cli
def import_(cli: CliContext, file: str) -> None:
    """Read what `export` wrote into this machine's memory.

    All records are imported, or none. Existing data is not changed: running it again imports nothing twice.
    """
    with closing(InputFile(file)) as source:
        total = sum(1 for _ in source.lines())
        if not total:
            raise NothingToRead(f"there are no records in {source.shown}; import takes what export wrote")
        with open_memory(cli, create=True) as honcho, progress_bar("Importing", total) as report:
            counts = honcho.load(_records(source, report, redact=_redacts(cli)))
    if cli.as_json:
        print_json({**{plural: counts[kind] for kind, plural in PLURALS.items()}, "already": counts["already"]})
        return
    print_text(stdout(), f"Imported {counted(counts)}; {counts['already']} records were there already.")


import_.name = "import"  # a word that no function can be called


def counted(counts: Mapping[str, int]) -> str:
    """Return how many of each kind there are, in words."""
    parts = [f"{count} {kind if count == 1 else PLURALS[kind]}" for kind in PLURALS if (count := counts.get(kind, 0))]
    return ", ".join(parts) or "nothing"


def redacted(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record without obvious secrets, which older versions did not mask."""
    texts = {name: redact_json(record[name]) for name in _TEXTS if name in record}
    metadata = record.get("metadata")
    if isinstance(metadata, dict) and isinstance(key := metadata.get(SOURCE_KEY), str):
        # It identifies the message.
        texts["metadata"][SOURCE_KEY] = redact_key(key)
    return {**record, **texts}


def _redacts(cli: CliContext) -> bool:
    return load_settings(cli).settings.redact


def _records(source: InputFile, report: Progress, *, redact: bool) -> Iterator[tuple[str, object]]:
    for place, line in source.lines():
        try:
            record = parse_json(line)
            yield place, redacted(record) if redact and isinstance(record, dict) else record
        except ApiError as error:
            raise InputError(f"{place}: is not JSON; nothing was imported") from error
        except RecursionError as error:
            raise InputError(f"{place}: is nested too deep; nothing was imported") from error
        report(1, "")


@contextmanager
def _private(file: str) -> Iterator[BinaryIO]:
    """A file that only its owner can read, and that is there whole or not at all; `-` is stdout.

    A device or a pipe is written to.
    """
    if file == "-":
        yield sys.stdout.buffer
        return
    if (path := Path(file)).exists() and not path.is_file():
        with path.open("wb") as out:
            yield out
        return
    path = path.resolve()
    if not path.parent.is_dir():
        raise InputError(f"{file} cannot be written: {path.parent} is not a folder")
    with write_atomically(path) as out:
        yield out
