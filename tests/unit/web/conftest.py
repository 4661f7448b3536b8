from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.providers import MakeProvider
from support.serving import HOSTILE, Serve, Served, start_serving

from honcho_exec import HonchoProvider


@pytest.fixture
def remembered(make_provider: MakeProvider) -> HonchoProvider:
    """A memory with something in it, of every kind and with hostile text."""
    provider = make_provider("talks", workspace="home", peer_name="ada", ai_peer="bot")
    provider.sync_turn("The heron stands in the reeds.", HOSTILE).result(20)
    for fact in (f"Ada {HOSTILE}", "Ada likes herons"):
        answer = json.loads(provider.handle_tool_call("honcho_conclude", {"conclusion": fact}))
        assert "error" not in answer, answer
    assert "error" not in json.loads(provider.handle_tool_call("honcho_profile", {"card": ["Lives by a lake"]}))
    return provider


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `honcho-exec serve` on a free port; it is ended after the test."""
    running: list[Served] = []

    def serve(*options: str, **environ: str) -> Served:
        running.append(start_serving(tmp_path / "state", *options, **environ))
        return running[-1]

    yield serve
    for served in running:
        served.process.kill()
        served.process.communicate()
