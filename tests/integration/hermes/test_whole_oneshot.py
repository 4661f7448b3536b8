from __future__ import annotations

import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.faulty import FaultyServer
from support.model_api import ScriptedModel

from honcho_exec.embedded import EmbeddedHoncho

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Host


TOOLS = {"honcho_profile", "honcho_search", "honcho_reasoning", "honcho_context", "honcho_conclude"}


def tool_answers(model: ScriptedModel) -> list[dict[str, Any]]:
    """What went back to the model as results of tools, oldest first."""
    results = [body["messages"][-1] for body in model.requests if body["messages"][-1]["role"] == "tool"]
    return [json.loads(result["content"]) for result in results]


def offered(body: dict[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in body.get("tools", ())}


def waiting(host: Host) -> list[str]:
    with sqlite3.connect(f"file:{host.state / 'outbox.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT payload FROM rows ORDER BY id").fetchall()
    database.close()
    return [json.loads(payload)["content"] for (payload,) in rows]


def test_without_any_settings_runs_remember_each_other(host: Host) -> None:
    script = [
        ("honcho_conclude", {"conclusion": "Ada keeps bees."}),
        "Lisbon it is.",
        "Fine.",
        ("honcho_search", {"query": "Lisbon"}),
        "In Lisbon.",
    ]
    with ScriptedModel(script) as model:
        host.use_model(model.url)
        assert host.hermes("-z", "I moved to Lisbon, for the light.") == "Lisbon it is.\n"
        assert host.hermes("-z", "It rains today.") == "Fine.\n"
        assert host.hermes("-z", "Where do I live?") == "In Lisbon.\n"
        assert (model.left, model.overrun) == (0, 0)
        requests = [body for body in model.requests if body.get("tools")]
        assert all(offered(body) >= TOOLS for body in requests)
        concluded, found = tool_answers(model)
    assert concluded["result"] == "The conclusion about ada is kept: Ada keeps bees."
    assert "I moved to Lisbon, for the light." in found["result"]
    assert "Lisbon it is." in found["result"]
    # What the first run learnt is put before the later ones by itself.
    assert "Ada keeps bees." in json.dumps(requests[-1]["messages"])
    assert waiting(host) == []


def test_a_run_without_a_server_ends_soon_and_a_later_one_delivers_its_turn(host: Host) -> None:
    embedded = EmbeddedHoncho(host.root / "server.db")
    with FaultyServer(embedded.app) as server, ScriptedModel(["Noted.", "Hello."]) as model:
        host.use_model(model.url)
        settings = {"HONCHO_BASE_URL": server.url}
        server.stop()
        begun = time.monotonic()
        assert host.hermes("-z", "I moved to Lisbon.", settings=settings) == "Noted.\n"
        assert time.monotonic() - begun < 20
        assert waiting(host) == ["I moved to Lisbon.", "Noted."]
        server.start()
        assert host.hermes("-z", "Hi.", settings=settings) == "Hello.\n"
        assert waiting(host) == []
        sent = [seen.body_json["messages"] for seen in server.requests if seen.is_for("POST", r"/messages$")]
    embedded.close()
    said = [message["content"] for batch in sent for message in batch]
    assert said == ["I moved to Lisbon.", "Noted.", "Hi.", "Hello."]
