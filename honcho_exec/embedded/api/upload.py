"""The handler for uploads: a file becomes messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.parser import BytesHeaderParser, HeaderParser
from email.policy import HTTP
from typing import Final

from honcho_exec.embedded.api.request import Request, Response
from honcho_exec.embedded.limits import MOST_FILE
from honcho_exec.embedded.query.listing import item
from honcho_exec.embedded.store.writing import add_messages
from honcho_exec.embedded.wire import ApiError, InvalidValueError, NewMessage, checked, parse_json
from honcho_exec.text.cleaning import split

__all__ = ["upload"]

_MAX_CHARACTERS: Final = 25_000
_MAX_PARTS: Final = 16
_MAX_HEADER_BYTES: Final = 8_192
_BLANK: Final = re.compile(rb"(?:\A|\n)\r?\n")
_FIELDS: Final = frozenset({"peer_id", "metadata", "configuration", "created_at"})


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str


def upload(request: Request) -> Response:
    """Store a file's text as messages of one peer."""
    workspace, session = request.new_id("workspace_id"), request.new_id("session_id")
    file, fields = _form(request)
    if file is None:
        raise InvalidValueError(("body", "file"), "Field required", "missing")
    values: dict[str, object] = {name: fields[name] for name in ("peer_id", "created_at") if fields.get(name)}
    for name in ("metadata", "configuration"):
        if text := fields.get(name):
            values[name] = _document(name, text)
    parts = split(_text(file), _MAX_CHARACTERS, mark="")
    if not parts:
        raise InvalidValueError(("body", "file"), "the file holds no text")
    messages = [checked(NewMessage.model_validate, {**values, "content": part}, "body") for part in parts]
    with request.store.writing() as writer:
        rows = add_messages(writer, workspace, session, messages)
    return Response(201, [item(row) for row in rows])


def _form(request: Request) -> tuple[_File | None, dict[str, str]]:
    """Return the file and the fields of a form.

    falcon's parser refuses forms with empty parts, which some clients send; the standard library's takes seconds for
    thousands of parts, nested ones included.
    """
    file, fields = None, {}
    for piece in _pieces(request):
        part = BytesHeaderParser(policy=HTTP).parsebytes(piece)
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if name == "file":
            if file is not None:
                raise InvalidValueError(("body", "file"), "one file at a time is taken")
            file = _File(content if isinstance(content, bytes) else b"", part.get_content_type())
        elif name in _FIELDS and isinstance(content, bytes):
            fields[str(name)] = content.decode(errors="replace")
    return file, fields


def _pieces(request: Request) -> list[bytes]:
    """Return the parts of a form with their headers.

    Raises:
        InvalidValueError: the body is no form, has too many parts or too long headers, or is truncated.
    """
    boundary = HeaderParser(policy=HTTP).parsestr(f"Content-Type: {request.content_type}\n\n").get_boundary()
    if not boundary:
        raise InvalidValueError(("body",), "a form (multipart/form-data) with a boundary is needed")
    line = rb"(?:\A|\r?\n)--%s(--)?[ \t]*(?:\Z|(?=\r?\n))" % re.escape(boundary.encode("latin-1", "replace"))
    # After the preamble, end markers and parts alternate.
    _, *tokens = re.split(line, request.raw, maxsplit=_MAX_PARTS + 1)
    ends, pieces = tokens[::2], tokens[1::2]
    if b"--" not in ends:
        many = len(ends) > _MAX_PARTS
        why = f"a form of at most {_MAX_PARTS} parts is taken" if many else "the form has no closing boundary"
        raise InvalidValueError(("body",), why)
    parts = [piece.removeprefix(b"\r").removeprefix(b"\n") for piece in pieces[: ends.index(b"--")]]
    if any(len(part) > _MAX_HEADER_BYTES and not _BLANK.search(part, 0, _MAX_HEADER_BYTES) for part in parts):
        raise InvalidValueError(("body",), f"the headers of a part have more than {_MAX_HEADER_BYTES:,} bytes")
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
