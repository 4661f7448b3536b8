from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.model_api import ScriptedModel

TOOLS = [{"type": "function", "function": {"name": "todo", "parameters": {"type": "object"}}}]
CALL = ("todo", {"items": ["buy milk", "drink it"]})


def ask(model: ScriptedModel, **body: Any) -> httpx.Response:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS} | body
    return httpx.post(f"{model.url}/chat/completions", json=body, trust_env=False).raise_for_status()


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["Content-Type"] == "text/event-stream"
    *events, end, rest = response.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def deltas_of(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def test_steps_are_served_in_order() -> None:
    with ScriptedModel([CALL, "done"]) as model:
        first, second = (ask(model).json()["choices"][0] for _ in range(2))
        assert model.left == 0
    assert first["finish_reason"] == "tool_calls"
    (call,) = first["message"]["tool_calls"]
    assert call["function"]["name"] == "todo"
    assert json.loads(call["function"]["arguments"]) == CALL[1]
    assert second["finish_reason"] == "stop"
    assert second["message"] == {"role": "assistant", "content": "done"}


def test_a_step_may_look_at_the_request() -> None:
    with ScriptedModel([lambda body: "you said " + body["messages"][-1]["content"]]) as model:
        assert ask(model).json()["choices"][0]["message"]["content"] == "you said hi"
        assert model.requests[0]["messages"] == [{"role": "user", "content": "hi"}]


def test_a_request_without_tools_takes_no_step() -> None:
    with ScriptedModel(["the step"]) as model:
        assert ask(model, tools=[]).json()["choices"][0]["message"]["content"] == "A short talk"
        assert model.left == 1
        assert ask(model).json()["choices"][0]["message"]["content"] == "the step"
        assert len(model.requests) == 2


def test_the_end_of_the_script_is_said_and_counted() -> None:
    with ScriptedModel([]) as model:
        assert ask(model).json()["choices"][0]["message"]["content"] == "The script has ended."
        assert model.overrun == 1


def test_a_text_is_streamed() -> None:
    with ScriptedModel(["héllo you"]) as model:
        chunks = chunks_of(ask(model, stream=True, stream_options={"include_usage": True}))
    assert "".join(delta.get("content", "") for delta in deltas_of(chunks)) == "héllo you"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 2)


def test_a_tool_call_is_streamed() -> None:
    with ScriptedModel([CALL]) as model:
        chunks = chunks_of(ask(model, stream=True))
    (opening,), *pieces = (delta["tool_calls"] for delta in deltas_of(chunks) if "tool_calls" in delta)
    assert (opening["index"], opening["function"]) == (0, {"name": "todo", "arguments": ""})
    assert opening["id"]
    assert json.loads("".join(piece["function"]["arguments"] for (piece,) in pieces)) == CALL[1]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_models_are_listed() -> None:
    with ScriptedModel([]) as model:
        assert httpx.get(f"{model.url}/models", trust_env=False).json()["data"][0]["id"] == "fake"


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/show"), ("GET", "/v1/props"), ("GET", "/")])
def test_anything_else_is_not_found(method: str, path: str) -> None:
    with ScriptedModel([]) as model:
        response = httpx.request(method, model.server.url + path, json={}, trust_env=False)
    assert response.status_code == 404
    assert "error" in response.json()
