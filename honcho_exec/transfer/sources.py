"""Read messages from files, and report what is wrong with a line or a message."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from honcho_exec.errors import HonchoExecError
from honcho_exec.transfer.formats import is_conversation, is_store, of_conversation, of_document, of_store

__all__ = ["BadLines", "InputFile", "MessageLine", "NothingToRead", "parse_message", "parse_time", "read_messages"]

_SHOWN = 20
_HEAD = 512
_EXAMPLE = '{"role": "user", "content": "hello"}'
_FIELDS = ("role", "content", "session", "name", "created_at", "id")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class MessageLine:
    """One message of a conversation; fields that the line does not have are None."""

    role: str
    content: str
    session: str | None = None
    name: str | None = None
    created_at: str | None = None
    id: str | int | None = None


class BadLines(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """Some lines are not messages; nothing was sent.

    Args:
        problems: the first of them, each with its location.
        count: how many there are in all.
    """

    cause = "input"

    def __init__(self, problems: Sequence[str], count: int) -> None:
        more = f"\n  and {count - len(problems)} more" if count > len(problems) else ""
        lines = "1 line is not a message" if count == 1 else f"{count} lines are not messages"
        super().__init__(f"{lines}, so nothing was sent:\n  " + "\n  ".join(problems) + more)


class NothingToRead(HonchoExecError):  # noqa: N818 - reads as the state it reports
    """The input has no message."""

    cause = "input"


@dataclass
class InputFile:
    """A file of messages, or stdin as `-`, that can be read more than once.

    Its format is JSON lines, each a message or a conversation, a JSON list of either, or Hermes's session store.
    """

    name: str
    _copy: IO[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def shown(self) -> str:
        """The name of the file in messages."""
        return "stdin" if self.name == "-" else self.name

    @property
    def stem(self) -> str:
        """The session of lines that name none."""
        return "stdin" if self.name == "-" else Path(self.name).stem

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Read the lines that are not blank, each with its location."""
        with self._open() as file:
            for number, raw in enumerate(file, 1):
                text = raw.removeprefix(_BOM) if number == 1 else raw
                if text.strip():
                    yield f"{self.shown}:{number}", text

    def read(self) -> Iterator[tuple[str, MessageLine | str]]:
        """Read every message: its location, and the message or what is wrong with it."""
        with self._open() as file:
            head = file.read(_HEAD).removeprefix(_BOM)
        if is_store(head):
            if self._copy is not None:
                yield "stdin", "is a database, which is read from a file only: name the file"
                return
            yield from (
                (f"{self.name}: {location}", parse_message(found)) for location, found in of_store(Path(self.name))
            )
        elif head.lstrip().startswith(b"[") or self._spans_lines():
            yield from self._document()
        else:
            for location, text in self.lines():
                yield from _messages_of(location, _json(text))

    def _spans_lines(self) -> bool:
        """Return whether the file is one JSON object over several lines."""
        _, first = next(self.lines(), ("", b"{}"))
        if not first.lstrip().startswith(b"{") or not isinstance(_json(first), str):
            return False
        with self._open() as file:
            return isinstance(_json(file.read().removeprefix(_BOM)), dict)

    def _document(self) -> Iterator[tuple[str, MessageLine | str]]:
        with self._open() as file:
            found = _json(file.read().removeprefix(_BOM))
        if isinstance(found, dict):
            yield from _messages_of(self.shown, found)
        elif isinstance(found, list):
            yield from ((f"{self.shown}{location}", parse_message(one)) for location, one in of_document(found))
        else:
            yield self.shown, str(found)

    def close(self) -> None:
        """Delete the copy of a stream."""
        if self._copy is not None:
            self._copy.close()

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self._copy is None and self.name != "-" and Path(self.name).is_file():
            with Path(self.name).open("rb") as file:
                yield file
            return
        if self._copy is None:
            # A stream can be read only once.
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
            with click.open_file(self.name, "rb") as stream:
                shutil.copyfileobj(stream, self._copy)
        self._copy.seek(0)
        yield self._copy


def read_messages(files: Sequence[InputFile]) -> Iterator[tuple[InputFile, MessageLine]]:
    """Read every message of every file.

    Raises:
        BadLines: after the last message, if some lines are not messages; names the first of them.
    """
    problems: list[str] = []
    count = 0
    for file in files:
        for location, line in file.read():
            if isinstance(line, MessageLine):
                yield file, line
                continue
            count += 1
            if len(problems) < _SHOWN:
                problems.append(f"{location}: {line}")
    if count:
        raise BadLines(problems, count)


def parse_message(found: object) -> MessageLine | str:
    """Return the message of a JSON value, or what is wrong with it and what would be right."""
    if not isinstance(found, dict):
        return f"must be an object such as {_EXAMPLE}, not {_kind(found)}"
    problems = [*_problems(found)]
    if problems:
        return "; ".join(problems)
    known: dict[str, Any] = {key: found.get(key) for key in _FIELDS}
    return MessageLine(**known)


def _messages_of(location: str, found: object) -> Iterator[tuple[str, MessageLine | str]]:
    """Return the messages of a JSON value: a message, a conversation, or what is wrong with it."""
    if isinstance(found, dict) and is_conversation(found):
        yield from ((f"{location}{inner}", parse_message(one)) for inner, one in of_conversation(found))
    else:
        yield location, found if isinstance(found, str) else parse_message(found)


def _json(raw: bytes) -> object:
    """Parse JSON; a text is an error message, since a JSON string is no message."""
    try:
        found = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (byte {error.start + 1} of the line)"
    except (ValueError, RecursionError) as error:
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "not readable"
        return f"is not JSON ({what}); a line is one object, such as {_EXAMPLE}"
    return f"must be an object such as {_EXAMPLE}, not text" if isinstance(found, str) else found


def _problems(found: dict[str, Any]) -> Iterator[str]:
    if found.get("role") not in ("user", "assistant"):
        yield f'`role` must be "user" or "assistant"{_instead(found, "role")}'
    if not isinstance(found.get("content"), str):
        yield f"`content` must be text{_instead(found, 'content')}"
    for key in ("session", "name"):
        value = found.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            yield f"`{key}` must be text that is not empty{_instead(found, key)}"
    if not _is_time(found.get("created_at")):
        yield f'`created_at` must be ISO 8601 such as "2025-03-01T09:30:00Z"{_instead(found, "created_at")}'
    if isinstance(found.get("id"), bool) or not isinstance(found.get("id"), str | int | None):
        yield f"`id` must be text or an integer{_instead(found, 'id')}"


def _instead(found: dict[str, Any], key: str) -> str:
    if key not in found:
        return ", and is missing"
    value = found[key]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        shown = json.dumps(value)
        return f", not {shown if len(shown) <= 60 else shown[:57] + '…'}"  # noqa: PLR2004 - what fits a line
    return f", not {_kind(value)}"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _is_time(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and bool(parse_time(value))
    except (ValueError, OverflowError):
        return False


def parse_time(created_at: str) -> str:
    """Return an ISO 8601 time in UTC; one without an offset is in UTC already."""
    at = datetime.fromisoformat(created_at.strip())
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
