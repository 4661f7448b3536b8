"""A scripted model behind an OpenAI-compatible chat endpoint, to run a real agent offline."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from support.faulty import FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Reply", "ScriptedModel", "Step"]

Reply = str | tuple[str, dict[str, Any]]
Step = Reply | Callable[[dict[str, Any]], Reply]

ASIDE = "A short talk"
SCRIPT_ENDED = "The script has ended."
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class ScriptedModel:
    """Answers chat requests from a script, over HTTP on loopback, as a context manager.

    Each step is a text, a tool call as (name, arguments), or a callable that makes either from the request's body.
    A request that offers tools takes the next step; one without (an agent asks for a title and the like on the
    side) gets a short text. When no step is left the answer is a text that says so, and `overrun` counts it.
    `server` is what serves it: it takes faults, and has recorded what else was asked for.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.overrun = 0
        self._steps = list(steps)
        self._requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self.server = FaultyServer(self._app)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    @property
    def url(self) -> str:
        """The base URL to give to an OpenAI client."""
        return f"{self.server.url}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies of all chat requests so far, also of those without tools."""
        with self._lock:
            return list(self._requests)

    @property
    def left(self) -> int:
        """How many steps have not been taken."""
        with self._lock:
            return len(self._steps)

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        route = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        code, kind, content = "200 OK", "application/json", ""
        if route == ("POST", "/v1/chat/completions"):
            body = json.load(environ["wsgi.input"])
            number, reply = self._next_reply(body)
            if body.get("stream"):
                kind, content = "text/event-stream", _streamed(body, number, reply)
            else:
                content = json.dumps(_completion(body, number, reply))
        elif route == ("GET", "/v1/models"):
            content = json.dumps({"object": "list", "data": [{"id": "fake", "object": "model"}]})
        else:
            code, content = "404 Not Found", json.dumps({"error": {"message": "no such route", "code": 404}})
        start_response(code, [("Content-Type", kind)])
        return [content.encode()]

    def _next_reply(self, body: dict[str, Any]) -> tuple[int, Reply]:
        with self._lock:
            self._requests.append(body)
            number = len(self._requests)
            if not body.get("tools"):
                return number, ASIDE
            if not self._steps:
                self.overrun += 1
                return number, SCRIPT_ENDED
            step = self._steps.pop(0)
        return number, step(body) if callable(step) else step


def _completion(body: dict[str, Any], number: int, reply: Reply) -> dict[str, Any]:
    choice = {"index": 0, "message": _message(number, reply), "finish_reason": _finish_reason(reply)}
    return _envelope(body, number, "chat.completion") | {"choices": [choice], "usage": USAGE}


def _streamed(body: dict[str, Any], number: int, reply: Reply) -> str:
    envelope = _envelope(body, number, "chat.completion.chunk")
    deltas = [*_deltas(_message(number, reply)), {}]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices[-1]["finish_reason"] = _finish_reason(reply)
    chunks = [envelope | {"choices": [choice]} for choice in choices]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(envelope | {"choices": [], "usage": USAGE})
    return "".join(f"data: {event}\n\n" for event in [*map(json.dumps, chunks), "[DONE]"])


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message in pieces: a tool call's name comes first, its arguments follow in two halves."""
    if "tool_calls" not in message:
        return [{"role": "assistant", "content": half} for half in _halves(message["content"])]
    (call,) = message["tool_calls"]
    function = call["function"]
    opening = call | {"index": 0, "function": function | {"arguments": ""}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [opening]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": half}}]} for half in _halves(function["arguments"])),
    ]


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def _message(number: int, reply: Reply) -> dict[str, Any]:
    if isinstance(reply, str):
        return {"role": "assistant", "content": reply}
    name, arguments = reply
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _finish_reason(reply: Reply) -> str:
    return "stop" if isinstance(reply, str) else "tool_calls"


def _envelope(body: dict[str, Any], number: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 0, "model": body.get("model", "fake")}
