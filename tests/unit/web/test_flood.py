"""What clients without the key, and clients with large bodies, can take from the served Honcho."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest
from support.serving import Serve, Served

from honcho_exec.embedded.limits import body_limit, too_many_values

MESSAGES = "/v3/workspaces/w/sessions/s/messages"
MIB = 1024 * 1024


def connect(served: Served, stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))))
    sock.settimeout(20)
    return sock


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def push(sock: socket.socket, size: int) -> int:
    """Send so many bytes until the server closes; return how many it took."""
    block, sent = b"x" * 65536, 0
    try:
        while sent < size:
            sent += sock.send(block)
    except OSError:
        pass
    return sent


def answer(sock: socket.socket) -> bytes:
    """Return what the server says until it closes."""
    told = b""
    try:
        while data := sock.recv(65536):
            told += data
    except ConnectionResetError:
        pass
    return told


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return not sock.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", MESSAGES, [f"Content-Length: {60 * MIB}"], b"401"),
        ("POST", MESSAGES, [f"Content-Length: {60 * MIB}", "Authorization: Bearer wrong"], b"401"),
        ("POST", MESSAGES, ["Transfer-Encoding: chunked"], b"401"),
        ("POST", "/local/login", [f"Content-Length: {60 * MIB}"], b"401"),
        ("POST", MESSAGES, [f"Content-Length: {60 * MIB}", "Origin: http://evil.example"], b"403"),
        ("GET", "/health", [f"Content-Length: {60 * MIB}"], b"200"),
        ("GET", "/", ["Transfer-Encoding: chunked"], b"200"),
    ],
)
def test_no_body_is_read_without_the_key(
    serve: Serve, method: str, path: str, headers: list[str], status: bytes
) -> None:
    served = serve()
    with ExitStack() as stack:
        socks = [connect(served, stack) for _ in range(20)]
        for sock in socks:
            sock.sendall(head(method, path, *headers))
            if "chunked" in headers[0]:
                sock.sendall(b"3c00000\r\n")
        with ThreadPoolExecutor(20) as threads:
            taken = list(threads.map(lambda sock: push(sock, 60 * MIB), socks))
        # What the two sockets' own buffers hold is not read by the server.
        assert max(taken) < 20 * MIB
        for sock in socks:
            told = answer(sock)
            assert told.startswith(b"HTTP/1.1 " + status)
            assert b"\r\nConnection: close\r\n" in told


def test_expect_continue_without_the_key_is_refused(serve: Serve) -> None:
    served = serve()
    with ExitStack() as stack:
        sock = connect(served, stack)
        sock.sendall(head("POST", MESSAGES, "Content-Length: 10", "Expect: 100-continue"))
        assert answer(sock).startswith(b"HTTP/1.1 401 ")
        sock = connect(served, stack)
        key = f"Authorization: bearer {served.key}"
        sock.sendall(head("POST", MESSAGES, "Content-Length: 2", "Expect: 100-continue", "Connection: close", key))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert answer(sock).startswith(b"HTTP/1.1 422 ")


@pytest.mark.slow
def test_large_bodies_take_bounded_memory(serve: Serve) -> None:
    served = serve()
    full = {"messages": [{"peer_id": "ada", "content": "😀" * 25_000} for _ in range(100)]}
    bodies = {
        b'{"messages":[' + b"[]," * (17 * MIB) + b"[]]}": 413,
        b'{"messages":[' + b"{}," * (5 * MIB) + b"{}]}": 413,
        b'{"messages":["' + '","'.join("aé" for _ in range(2 * MIB)).encode() + b'"]}': 413,
        b'{"messages":["' + b"a" * (15 * MIB) + b'\\ud83d\\ude00"]}': 422,
        json.dumps(full, ensure_ascii=False).encode(): 201,
    }
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    with httpx.Client(base_url=served.url, headers=headers, trust_env=False, timeout=60) as http:

        def post(body: bytes) -> int:
            return http.post(MESSAGES, content=body).status_code

        for body, status in bodies.items():
            with ThreadPoolExecutor(3) as threads:
                told = set(threads.map(post, [body] * 3))
            assert told <= {status, 503}
            assert status in told
    os.kill(served.process.pid, signal.SIGTERM)
    _, code, usage = os.wait4(served.process.pid, 0)
    served.process.returncode = os.waitstatus_to_exitcode(code)
    assert usage.ru_maxrss < 500_000


def test_chunked_bodies_are_bounded(serve: Serve) -> None:
    served = serve()
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    with httpx.Client(base_url=served.url, headers=headers, trust_env=False, timeout=60) as http:
        endless = http.post("/v3/workspaces", content=(b" " * 65536 for _ in range(100)))
        assert (endless.status_code, "bytes" in endless.json()["detail"]) == (413, True)
        assert http.post("/v3/workspaces", content=(part for part in (b'{"id":', b'"w"}'))).status_code == 201


@pytest.mark.usefixtures("many_files")
def test_unauthenticated_connections_are_dropped_and_block_nobody(serve: Serve) -> None:
    served = serve("--unauthenticated-share", "5")
    headers = {"Authorization": f"Bearer {served.key}"}
    with (
        httpx.Client(base_url=served.url, headers=headers, trust_env=False, timeout=5) as keeps,
        ExitStack() as stack,
    ):
        assert keeps.post("/v3/workspaces/list", json={}).status_code == 200
        began = time.monotonic()
        strangers = [connect(served, stack) for _ in range(1_000)]
        for sock in strangers[:500]:
            sock.send(b"GET /health HT")
        over = threading.Event()

        def trickle() -> None:
            while not over.wait(0.5):
                for sock in strangers:
                    with suppress(OSError):
                        sock.send(b"x")

        trickler = threading.Thread(target=trickle)
        trickler.start()
        try:
            for _ in range(50):
                assert keeps.post("/v3/workspaces/list", json={}).status_code == 200
                with httpx.Client(base_url=served.url, headers=headers, trust_env=False, timeout=5) as fresh:
                    assert fresh.post("/v3/workspaces/list", json={}).status_code == 200
            if time.monotonic() - began < 4:
                assert 1 <= sum(not is_closed(sock) for sock in strangers) <= 50
            for sock in strangers:
                sock.settimeout(10)
                answer(sock)
            assert time.monotonic() - began < 9
        finally:
            over.set()
            trickler.join()
        assert keeps.post("/v3/workspaces/list", json={}).status_code == 200


def test_body_limit_depends_on_the_route() -> None:
    assert body_limit(MESSAGES) == body_limit("/v3/workspaces/w/conclusions") == 16 * MIB
    assert body_limit(f"{MESSAGES}/upload") == 6 * MIB
    assert body_limit(f"{MESSAGES}/list") == body_limit("/v3/workspaces") == MIB


def test_json_values_are_counted_outside_of_strings() -> None:
    text = json.dumps({"messages": [{"content": '[{,"\\"[{,' * 2_000} for _ in range(100)]}).encode()
    assert len(text) > MIB
    assert not too_many_values(text)
    assert too_many_values(b"[" + b"0," * MIB + b"0]")
    assert too_many_values(text.decode().encode("utf-16"))
