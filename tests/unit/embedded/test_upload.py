from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest
from honcho import Honcho

UPLOAD = "/v3/workspaces/home/sessions/s/messages/upload"
MOST = 5 * 1024 * 1024


def upload(http: httpx.Client, content: bytes, media_type: str = "text/plain", **fields: str) -> httpx.Response:
    return http.post(UPLOAD, files={"file": ("a.txt", content, media_type)}, data={"peer_id": "alice", **fields})


def test_the_sdk_uploads_a_file(honcho: Honcho) -> None:
    (message,) = honcho.session("s").upload_file(
        ("notes.md", "a kingfisher, naïve 😀".encode(), "text/markdown"),
        peer="alice",
        metadata={"from": "notes"},
        created_at="2025-01-02T03:04:05Z",
    )
    assert (message.content, message.peer_id, message.metadata) == (
        "a kingfisher, naïve 😀",
        "alice",
        {"from": "notes"},
    )
    assert message.created_at == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [found.content for found in honcho.search("kingfisher")] == [message.content]


def test_a_long_file_becomes_messages_that_are_the_file_again(http: httpx.Client) -> None:
    text = " ".join(f"word{n}" for n in range(30_000))
    messages = upload(http, text.encode()).json()
    assert len(messages) > 10
    assert max(len(message["content"]) for message in messages) <= 25_000
    assert "".join(message["content"] for message in messages) == text


@pytest.mark.parametrize(
    ("content", "media_type", "stored"),
    [
        (b'{"bird": "heron"}', "application/json", '{"bird": "heron"}'),
        ("a heron, wide".encode("utf-16"), "text/plain", "a heron, wide"),
        (b"\xef\xbb\xbfwith a mark", "text/plain; charset=utf-8", "with a mark"),
        (b"a\0b\r\nc\rd\n\ne", "text/csv", "ab\r\nc\rd\n\ne"),
        (b"x" * 25_000, "TEXT/PLAIN", "x" * 25_000),
    ],
)
def test_text_is_stored_as_it_is(http: httpx.Client, content: bytes, media_type: str, stored: str) -> None:
    (message,) = upload(http, content, media_type).json()
    assert message["content"] == stored


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"x" * (MOST + 1), "text/plain", 413),
        (b"x" * (2 * MOST), "text/plain", 413),
        (b"Subject: x\r\n\r\ntext", "message/rfc822", 415),
        (b"\x89PNG", "image/png", 415),
        (b"%PDF-1.7", "application/pdf", 501),
        (b"\xff\xfa\xfb", "text/plain", 422),
        (b" \n", "text/plain", 422),
        (b"<|endoftext|>", "text/plain", 422),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_without_text_are_refused(
    http: httpx.Client, honcho: Honcho, content: bytes, media_type: str, status: int
) -> None:
    assert upload(http, content, media_type).status_code == status
    assert list(honcho.session("s").messages()) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"peer_id": "a b"}, ["body", "peer_id"]),
        ({"metadata": "no json"}, ["body", "metadata"]),
        ({"metadata": json.dumps([1])}, ["body", "metadata"]),
        ({"configuration": "7"}, ["body", "configuration"]),
        ({"created_at": "yesterday"}, ["body", "created_at"]),
    ],
)
def test_a_bad_field_is_named(http: httpx.Client, fields: dict[str, str], named: list[str]) -> None:
    answer = upload(http, b"a heron", **fields)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, named)


def test_an_empty_part_does_not_break_a_form(http: httpx.Client) -> None:
    form = (
        b'\r\n--x\r\nContent-Disposition: form-data; name="created_at"\r\n\r\n--x\r\n'
        b'Content-Disposition: form-data; name="peer_id"\r\n\r\nalice\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: text/plain\r\n\r\n'
        b"one\n--y\r\n\rtwo\r\n--x--\r\n"
    )
    answer = http.post(UPLOAD, content=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert [message["content"] for message in answer.json()] == ["one\n--y\r\n\rtwo"]


def test_bodies_other_than_forms_are_refused(http: httpx.Client) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x", "application/json", None):
        headers = {"Content-Type": content_type} if content_type else {}
        assert http.post(UPLOAD, content=b"--y\r\nnonsense", headers=headers).status_code == 422
    for form, named in (
        ({"peer_id": (None, "alice")}, "file"),
        ({"file": ("a.txt", b"a heron", "text/plain")}, "peer_id"),
    ):
        answer = http.post(UPLOAD, files=form)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", named])


PART = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\nContent-Type: text/plain\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (PART % (b"peer_id", b"alice") + PART % (b"file", b"cut"), "no closing boundary"),
        (PART % (b"peer_id", b"alice") + PART % (b"file", b"cut --x-- \r\n--x--y"), "no closing boundary"),
        (PART % (b"file", b"one") + PART % (b"file", b"two") + b"--x--\r\n", "one file at a time"),
        (PART % (b"peer_id", b"alice") + PART % (b"more", b"") * 20_000 + b"--x--\r\n", "at most 16 parts"),
        (b"--x\r\n" + b"a: b\r\n" * 2_000 + b"\r\nc\r\n--x--\r\n", "headers of a part"),
    ],
    ids=["cut", "cut at what looks like an end", "two files", "many parts", "many headers"],
)
def test_truncated_and_oversized_forms_are_refused(http: httpx.Client, honcho: Honcho, form: bytes, why: str) -> None:
    answer = http.post(UPLOAD, content=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, why in answer.json()["detail"][0]["msg"]) == (422, True)
    assert list(honcho.session("s").messages()) == []
