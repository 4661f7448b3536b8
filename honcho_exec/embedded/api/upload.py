"""Files that become messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.parser import BytesHeaderParser, HeaderParser
from email.policy import HTTP
from typing import Final

from honcho_exec.embedded.api.request import Answer, Call
from honcho_exec.embedded.limits import MOST_FILE
from honcho_exec.embedded.query.listing import message
from honcho_exec.embedded.store.writing import add_messages
from honcho_exec.embedded.wire import ApiError, InvalidValueError, NewMessage, checked, parse_json
from honcho_exec.text.cleaning import split

__all__ = ["upload"]

_MOST_CHARACTERS: Final = 25_000
_MOST_PARTS: Final = 16
_MOST_HEAD: Final = 8_192
_BLANK: Final = re.compile(rb"(?:\A|\n)\r?\n")
_FIELDS: Final = frozenset({"peer_id", "metadata", "configuration", "created_at"})


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str


def upload(call: Call) -> Answer:
    """Store a file's text as messages of one peer, as many as it takes."""
    workspace, session = call.new_id("workspace_id"), call.new_id("session_id")
    file, fields = _form(call)
    if file is None:
        raise InvalidValueError(("body", "file"), "Field required", "missing")
    given: dict[str, object] = {name: fields[name] for name in ("peer_id", "created_at") if fields.get(name)}
    for name in ("metadata", "configuration"):
        if text := fields.get(name):
            given[name] = _document(name, text)
    parts = split(_text(file), _MOST_CHARACTERS, mark="")
    if not parts:
        raise InvalidValueError(("body", "file"), "the file holds no text")
    messages = [checked(NewMessage.model_validate, {**given, "content": part}, "body") for part in parts]
    with call.store.writing() as writer:
        rows = add_messages(writer, workspace, session, messages)
    return Answer(201, [message(row) for row in rows])


def _form(call: Call) -> tuple[_File | None, dict[str, str]]:
    """The file and the fields of a form.

    falcon's own parser refuses forms with empty parts, as some clients write them; the standard library's takes seconds
    for thousands of parts, also for those within a part.
    """
    file, fields = None, {}
    for piece in _pieces(call):
        part = BytesHeaderParser(policy=HTTP).parsebytes(piece)
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if name == "file":
            if file is not None:
                raise InvalidValueError(("body", "file"), "one file at a time is taken")
            file = _File(content if isinstance(content, bytes) else b"", part.get_content_type())
        elif name in _FIELDS and isinstance(content, bytes):
            fields[str(name)] = content.decode(errors="replace")
    return file, fields


def _pieces(call: Call) -> list[bytes]:
    """The parts of a form with their headers.

    Raises:
        InvalidValueError: it is none, has too many parts or too long headers, or was cut off.
    """
    boundary = HeaderParser(policy=HTTP).parsestr(f"Content-Type: {call.content_type}\n\n").get_boundary()
    if not boundary:
        raise InvalidValueError(("body",), "a form (multipart/form-data) with a boundary is needed")
    line = rb"(?:\A|\r?\n)--%s(--)?[ \t]*(?:\Z|(?=\r?\n))" % re.escape(boundary.encode("latin-1", "replace"))
    # What stood before the first boundary, then by turns whether one ends the form, and what followed it.
    _, *found = re.split(line, call.raw, maxsplit=_MOST_PARTS + 1)
    ends, pieces = found[::2], found[1::2]
    if b"--" not in ends:
        many = len(ends) > _MOST_PARTS
        why = f"a form of at most {_MOST_PARTS} parts is taken" if many else "the form has no closing boundary"
        raise InvalidValueError(("body",), why)
    parts = [piece.removeprefix(b"\r").removeprefix(b"\n") for piece in pieces[: ends.index(b"--")]]
    if any(len(part) > _MOST_HEAD and not _BLANK.search(part, 0, _MOST_HEAD) for part in parts):
        raise InvalidValueError(("body",), f"the headers of a part have more than {_MOST_HEAD:,} bytes")
    return parts


def _text(file: _File) -> str:
    if len(file.content) > MOST_FILE:
        raise ApiError(413, f"The file has {len(file.content):,} bytes; at most {MOST_FILE:,} are taken")
    if file.media_type == "application/pdf":
        raise ApiError(501, "A PDF is not served by the embedded Honcho; it needs a Honcho server")
    if file.media_type != "application/json" and not file.media_type.startswith("text/"):
        raise ApiError(415, f"A file is text, JSON or PDF, not {file.media_type[:80]}")
    wide = file.content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = file.content.decode("utf-16" if wide else "utf-8-sig")
    except ValueError as error:
        raise InvalidValueError(("body", "file"), "the file must be UTF-8, or UTF-16 with a byte order mark") from error
    return text.replace("\0", "").strip()


def _document(name: str, text: str) -> object:
    try:
        value = parse_json(text.encode())
    except InvalidValueError:
        value = text
    if not isinstance(value, dict | None):
        raise InvalidValueError(("body", name), "Input should be a JSON object", "json_invalid")
    return value
