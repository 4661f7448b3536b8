"""Print rows of the outbox, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from honcho_exec.cli.context import printable
from honcho_exec.cli.output import print_fields, print_text, without_password
from honcho_exec.clock import format_duration, iso_time
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement, Write
from honcho_exec.outbox.rows import OutboxRow

__all__ = ["EVERY", "many", "show_row", "show_rows", "to_dict"]

EVERY = 2**63 - 1
"""A limit that includes every row."""

# Widths in columns: of names at most, of the text at most and at least, and between columns.
_MAX_NAME = 24
_MAX_TEXT = 60
_MIN_TEXT = 12
_GAP = 2
_STYLES = {"parked": "yellow", "in flight": "cyan"}


def to_dict(row: OutboxRow, now: float) -> dict[str, object]:
    """Return a row for JSON; times are ISO 8601, `age` is in seconds."""
    return {
        "id": row.id,
        "state": _state(row).replace(" ", "_"),
        "kind": row.write.kind,
        "destination": without_password(row.destination),
        "workspace": row.ref.workspace,
        "session": row.ref.session,
        "who": _who(row.write),
        "turn": row.turn,
        "admitted_at": iso_time(row.admitted_at),
        "age": max(0.0, round(now - row.admitted_at, 3)),
        "attempts": row.attempts,
        "reason": without_password(row.error) if row.error is not None else None,
        "parked_at": iso_time(row.parked_at) if row.parked_at is not None else None,
        "text": _text(row.write),
        "write": asdict(row.write),
    }


def show_rows(console: Console, rows: Sequence[OutboxRow], now: float, *, everywhere: bool) -> None:
    """Print one line for each row, with its destination if `everywhere`, cut to the width of a terminal."""
    heads = ["id", "state", "kind", "session", "who", "age", "tries", *(["destination"] if everywhere else [])]
    lines = [[*heads, "text", "reason"], *(_cells(row, now, everywhere=everywhere) for row in rows)]
    widths = [max(Text(cell).cell_len for cell in column) for column in zip(*lines, strict=True)]
    if not any(line[-1] for line in lines[1:]):
        widths[-1] = 0
    if console.is_terminal:
        widths = _fitted(widths, console.width)
    for index, line in enumerate(lines):
        style = "dim" if index == 0 else _STYLES.get(line[1], "")
        output = Text()
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            if not width:
                continue
            part = Text(cell, style=style if index == 0 or column == 1 else "")
            part.truncate(width, overflow="ellipsis", pad=True)
            output.append_text(part).append(" " * _GAP)
        output.rstrip()
        if console.is_terminal:
            output.truncate(console.width, overflow="ellipsis")
        console.print(output, soft_wrap=True)


def show_row(console: Console, row: OutboxRow, now: float) -> None:
    """Print everything of a row, its text in full."""
    write = row.write
    parked = f", since {_when(row.parked_at)}" if row.parked_at is not None else ""
    shown = [
        ("id", str(row.id), ""),
        ("state", _state(row) + parked, _STYLES.get(_state(row), "")),
        ("reason", without_password(row.error or ""), ""),
        ("attempts", str(row.attempts), ""),
        ("kind", row.write.kind, ""),
        ("who", _who(write), ""),
        ("session", row.ref.session, ""),
        ("peers", f"{row.ref.user_peer} (user), {row.ref.ai_peer} (assistant)", ""),
        ("destination", without_password(row.destination), ""),
        ("turn", row.turn, ""),
        ("stored", f"{_when(row.admitted_at)} ({format_duration(now - row.admitted_at)} ago)", ""),
    ]
    if isinstance(write, Message):
        metadata = ", ".join(f"{name}: {value}" for name, value in write.metadata.items())
        shown += [("said", write.created_at or "", ""), ("source", write.source_key or "", "")]
        shown += [("metadata", metadata, "")]
    print_fields(console, [line for line in shown if line[1]])
    console.print()
    print_text(console, _text(write), indent=2)


def many(count: int) -> str:
    """Return a number of rows in words."""
    return f"{count} row{'' if count == 1 else 's'}"


def _cells(row: OutboxRow, now: float, *, everywhere: bool) -> list[str]:
    cells = [
        str(row.id),
        _state(row),
        row.write.kind,
        row.ref.session,
        _who(row.write),
        format_duration(now - row.admitted_at),
        str(row.attempts),
    ]
    if everywhere:
        cells.append(without_password(row.destination))
    words = _line(_text(row.write))
    cells.append(words if len(words) <= _MAX_TEXT else f"{words[: _MAX_TEXT - 1].rstrip()}…")
    # Every reason begins with the address, which would leave no room for the rest.
    address = row.destination.rpartition(" ")[0]
    cells.append(without_password((row.error or "").removeprefix(f"{address} ")))
    return [_line(cell) for cell in cells]


def _fitted(widths: Sequence[int], width: int) -> list[int]:
    """Return the widths that fit a line: names are cut, then text and reason share the rest."""
    names = [min(column, _MAX_NAME) for column in widths[:-2]]
    words, reason = widths[-2:]
    left = width - sum(names) - _GAP * (len(widths) - (1 if reason else 2))
    words = max(_MIN_TEXT, min(words, max(left // 2, left - reason)))
    return [*names, words, min(reason, max(_MIN_TEXT, left - words))]


def _state(row: OutboxRow) -> str:
    if row.parked_at is not None:
        return "parked"
    return "in flight" if row.in_flight else "waiting"


def _who(write: Write) -> str:
    return " about ".join(dict.fromkeys(write.peers))


def _text(write: Write) -> str:
    match write:
        case Message() | Conclusion():
            return write.content
        case Card():
            return "\n".join(f"- {fact}" for fact in write.facts)
        case Deletion():
            return f"conclusion {write.conclusion_id}"
        case Replacement():
            return write.new or f"no more: {write.old}"


def _line(text: str) -> str:
    return " ".join(printable(text).split())


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
