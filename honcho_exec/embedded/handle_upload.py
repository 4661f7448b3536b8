"""Files that become messages."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from typing import Final

from honcho_exec.embedded.call import Answer, Call
from honcho_exec.embedded.listing import message
from honcho_exec.embedded.wire import Body, Invalid, NewMessage, Refused, parse_json
from honcho_exec.embedded.writing import add_messages
from honcho_exec.text import split

__all__ = ["upload"]

_MOST_BYTES: Final = 5 * 1024 * 1024
_MOST_CHARACTERS: Final = 25_000
_MOST_BESIDE: Final = 1024 * 1024
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
        raise Invalid(("body", "file"), "Field required", "missing")
    given: dict[str, object] = {name: fields[name] for name in ("peer_id", "created_at") if fields.get(name)}
    for name in ("metadata", "configuration"):
        if text := fields.get(name):
            given[name] = Body({name: _document(name, text)}).object(name)
    parts = split(_text(file), _MOST_CHARACTERS, mark="")
    if not parts:
        raise Invalid(("body", "file"), "the file holds no text")
    messages = [NewMessage.parse(Body({**given, "content": part})) for part in parts]
    with call.store.writing() as writer:
        rows = add_messages(writer, workspace, session, messages)
    return Answer(201, [message(row) for row in rows])


def _form(call: Call) -> tuple[_File | None, dict[str, str]]:
    """The file and the fields of a form.

    The standard library reads it: falcon's own parser refuses forms with empty parts, as some clients write them.
    """
    if len(call.raw) > _MOST_BYTES + _MOST_BESIDE:
        raise Refused(413, f"The form has {len(call.raw):,} bytes; a file of at most {_MOST_BYTES:,} is taken")
    head = f"Content-Type: {call.content_type}\r\n\r\n".encode("latin-1")
    form = message_from_bytes(head + call.raw, policy=HTTP)
    file, fields = None, {}
    for part in form.iter_parts():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if name == "file":
            file = _File(content if isinstance(content, bytes) else b"", part.get_content_type())
        elif name in _FIELDS and isinstance(content, bytes):
            fields[str(name)] = content.decode(errors="replace")
    return file, fields


def _text(file: _File) -> str:
    if len(file.content) > _MOST_BYTES:
        raise Refused(413, f"The file has {len(file.content):,} bytes; at most {_MOST_BYTES:,} are taken")
    if file.media_type == "application/pdf":
        raise Refused(501, "A PDF is not served by the embedded Honcho; it needs a Honcho server")
    if file.media_type != "application/json" and not file.media_type.startswith("text/"):
        raise Refused(415, f"A file is text, JSON or PDF, not {file.media_type[:80]}")
    wide = file.content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = file.content.decode("utf-16" if wide else "utf-8-sig")
    except ValueError as error:
        raise Invalid(("body", "file"), "the file must be UTF-8, or UTF-16 with a byte order mark") from error
    return text.replace("\0", "").strip()


def _document(name: str, text: str) -> object:
    try:
        return parse_json(text.encode())
    except Invalid as error:
        raise Invalid(("body", name), "Input should be a JSON object", "json_invalid") from error
