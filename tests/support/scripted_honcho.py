"""A Honcho in this process behind HTTP whose every failure is told in advance, on a clock that is moved by hand."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from support.hand_clock import HandTimer

from honcho_exec.client.api import HonchoApi
from honcho_exec.client.backend import Backend
from honcho_exec.client.connection import Connection, Link
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.net.breaker import Breaker
from honcho_exec.runtime.lane import Lane
from honcho_exec.runtime.metrics import Meter
from honcho_exec.settings import Settings

__all__ = [
    "LATE",
    "LATE_AFTER_A_KILL",
    "LOOK_FAULTS",
    "PLACE_FAULTS",
    "TIMEOUT",
    "WORKSPACE",
    "WRITE_FAULTS",
    "Killed",
    "ScriptedConnection",
    "ScriptedHoncho",
]

WORKSPACE = "w"

TIMEOUT = 2.0
"""Seconds after which whoever uses this gives a request up."""

LATE = {"timeout": 3.0, "504": 3.0, "reset": 1.0, "502": 1.0, "503": 1.0}
"""Seconds for which the server may be at the work after its answer was lost in this way (`docs/reliability.md`)."""

LATE_AFTER_A_KILL = TIMEOUT + 3.0
"""The same, from the start of a request whose process was killed."""

WRITE_FAULTS = (
    "not sent",
    "401",
    "404",
    "422",
    "429",
    "500",
    "500, done",
    *(
        f"{kind}{done}"
        for kind in ("502", "503", "504", "reset", "timeout", "killed")
        for done in ("", ", done", ", done late")
    ),
    "garbage",
    "garbage, done",
    "nonsense, done",
)
"""What becomes of a write: its answer, and whether and when the work was done."""

LOOK_FAULTS = (
    "not sent", "401", "404", "422", "429", "500", "503", "reset", "timeout", "garbage", "nonsense", "slow", "killed",
)  # fmt: skip
"""What becomes of a question whether something is there; `slow` answers what was so when it was asked."""

PLACE_FAULTS = ("not sent", "401", "404", "422", "500", "503", "reset", "garbage", "nonsense", "killed")
"""What becomes of making a session, listing its members and joining them."""

_WRITES = re.compile(r"POST .*/(messages|conclusions)$")
_LOOKS = re.compile(r"POST .*/list$")
_JOINS = re.compile(r"POST .*/peers$")


class Killed(BaseException):
    """The process ends here."""


class ScriptedHoncho:
    """The embedded Honcho, and what happens to the requests for it.

    Attributes:
        writes, looks, places: the faults of the next requests of that kind; "" is none.
        meanwhile: what happens while each of the next writes is under way, before the server does it.
        lateness: how late late work is, as a share of how late it may be.
        down: whether nobody can reach it.
        locked: whether it refuses every key.
        requests: how many there were.
        joins: how many of them had a peer join a session.
        changes: how many writes were done.
    """

    def __init__(self, folder: Path, timer: HandTimer) -> None:
        self.timer = timer
        self._honcho = EmbeddedHoncho(folder / "memory.db", clock=timer)
        self._app = httpx.WSGITransport(app=self._honcho.app)
        self.writes: deque[str] = deque()
        self.looks: deque[str] = deque()
        self.places: deque[str] = deque()
        self.meanwhile: deque[Callable[[], None]] = deque()
        self.lateness = 0.5
        self.down = False
        self.locked = False
        self.requests = 0
        self.joins = 0
        self.changes = 0

    def backend(self, under_way: Callable[[bytes], AbstractContextManager[None]]) -> Backend:
        """A process's way to it; every write is made inside `under_way`, which is given its body."""
        client = httpx.Client(transport=_Transport(self, under_way))
        return Backend("http://honcho", "http://honcho", None, client, abort=lambda: None, close=client.close)

    def heal(self) -> None:
        """Do to no further request anything but what it asks."""
        self.down = self.locked = False
        for script in (self.writes, self.looks, self.places, self.meanwhile):
            script.clear()

    def close(self) -> None:
        """Close its file."""
        self._honcho.close()

    def messages(self, session: str) -> list[str]:
        """Everything it has of a session, in its order."""
        return [item["content"] for item in self._all(f"sessions/{session}/messages/list")]

    def conclusions(self) -> list[str]:
        """Every conclusion it has."""
        return [item["content"] for item in self._all("conclusions/list")]

    def _all(self, path: str) -> Iterator[dict[str, Any]]:
        for page in itertools.count(1):
            url = f"http://honcho/v3/workspaces/{WORKSPACE}/{path}?page={page}&size=100"
            found = self._work(httpx.Request("POST", url, json={})).json()
            yield from found["items"]
            if page >= found["pages"]:
                return

    def serve(self, request: httpx.Request) -> httpx.Response:
        """Do to a request what the script says."""
        self.requests += 1
        what = f"{request.method} {request.url.path}"
        if self.down:
            raise httpx.ConnectError("connection refused", request=request)
        if self.locked:
            return _answer(request, 401)
        if _WRITES.match(what):
            return self._write(request)
        self.joins += _JOINS.match(what) is not None
        fault = _next(self.looks if _LOOKS.match(what) else self.places)
        if not fault or fault == "slow":
            response = self._work(request)
            # What is done from here on is not in the answer.
            self.timer.advance(TIMEOUT * 0.9 if fault else 0.0)
            return response
        return self._fail(request, fault)

    def _write(self, request: httpx.Request) -> httpx.Response:
        if self.meanwhile:
            self.meanwhile.popleft()()
        fault, _, done = _next(self.writes).partition(", ")
        body = request.content
        if not fault and (b"poison" in body or b"choke" in body):
            return _answer(request, 422 if b"poison" in body else 500)
        if not fault:
            return self._change(request)
        if done == "done":
            self._change(request)
        if done == "done late":
            late = LATE_AFTER_A_KILL if fault == "killed" else LATE[fault] + TIMEOUT * (fault == "timeout")
            begun = TIMEOUT if fault == "timeout" else 0.0
            self.timer.after(begun + self.lateness * (late - begun), lambda: self._change(request) and None)
        return self._fail(request, fault)

    def _fail(self, request: httpx.Request, fault: str) -> httpx.Response:
        match fault:
            case "killed":
                raise Killed
            case "not sent":
                raise httpx.ConnectError("connection refused", request=request)
            case "reset":
                raise httpx.ReadError("connection reset by peer", request=request)
            case "timeout":
                self.timer.advance(TIMEOUT)
                raise httpx.ReadTimeout("timed out", request=request)
            case "garbage":
                return httpx.Response(200, content=b"<html>\xff not JSON", request=request)
            case "nonsense":
                return httpx.Response(200, json={"unexpected": True}, request=request)
        return _answer(request, int(fault))

    def _change(self, request: httpx.Request) -> httpx.Response:
        response = self._work(request)
        assert response.status_code < 300, f"the server itself refuses {request.url}: {response.text}"
        self.changes += 1
        return response

    def _work(self, request: httpx.Request) -> httpx.Response:
        answer = self._app.handle_request(request)
        with_body = httpx.Response(answer.status_code, headers=answer.headers, content=answer.read(), request=request)
        answer.close()
        return with_body


class ScriptedConnection(Connection):
    """A connection to a scripted Honcho; every write is made inside `under_way`, which is given its body."""

    def __init__(
        self,
        honcho: ScriptedHoncho,
        lane: Lane,
        home: Path,
        breaker: Breaker,
        under_way: Callable[[bytes], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        meter, clock, backend = Meter(), honcho.timer, honcho.backend(under_way)
        settings = Settings(timeout=TIMEOUT, base_url="http://honcho")
        super().__init__(lane, settings, home, WORKSPACE, clock=clock, breaker=breaker, meter=meter)
        api = HonchoApi(backend, WORKSPACE, timeout=TIMEOUT, clock=clock, breaker=breaker, meter=meter)
        self._scripted = Link(backend, api, self._cache(api))

    def open(self) -> Link:
        return self._scripted

    def close(self) -> None:
        self._scripted.backend.close()


class _Transport(httpx.BaseTransport):
    def __init__(self, honcho: ScriptedHoncho, under_way: Callable[[bytes], AbstractContextManager[None]]) -> None:
        self._honcho = honcho
        self._under_way = under_way

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        writes = _WRITES.match(f"{request.method} {request.url.path}")
        with self._under_way(body) if writes else nullcontext():
            return self._honcho.serve(request)


def _next(script: deque[str]) -> str:
    return script.popleft() if script else ""


def _answer(request: httpx.Request, status: int) -> httpx.Response:
    return httpx.Response(status, json={"detail": "as the script says"}, request=request)
