"""`honcho-cli` from the package index: every command that asks a server, but those of scopes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from honcho import Honcho
from support.serving import Served

CLIENT = "honcho-cli>=0.2.1,<1"
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", CLIENT], check=True)
    return folder / "bin" / "honcho"


@pytest.fixture
def honcho(command: Path, served: Served, tmp_path: Path) -> Command:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HONCHO_BASE_URL": served.url,
        "HONCHO_API_KEY": served.key,
        "HONCHO_WORKSPACE_ID": "home",
    }

    def run(*words: str) -> Any:
        ran = subprocess.run([command, *words], env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return json.loads(ran.stdout)

    return run


@pytest.fixture
def talked(served: Served) -> None:
    """A session of two in which something was said."""
    with httpx.Client(trust_env=False) as http:
        home = Honcho(workspace_id="home", base_url=served.url, api_key=served.key, http_client=http, max_retries=0)
        ada, session = home.peer("ada"), home.session("talk")
        session.add_peers(["ada", "bot"])
        session.add_messages(ada.message("The heron stands in the reeds."))


def test_places_are_made_changed_and_deleted(honcho: Command) -> None:
    honcho("workspace", "create", "home")
    for peer in ("ada", "bot"):
        honcho("peer", "create", peer)
    honcho("session", "create", "talk")
    honcho("session", "add-peers", "talk", "ada", "bot")
    assert honcho("workspace", "inspect", "home")["peer_count"] == 2
    honcho("session", "remove-peers", "talk", "bot")
    assert [peer["id"] for peer in honcho("session", "peers", "talk")] == ["ada"]
    honcho("session", "set-metadata", "talk", "--data", '{"plan": "b"}')
    assert honcho("session", "get-metadata", "talk")["metadata"] == {"plan": "b"}
    honcho("peer", "set-metadata", '{"plan": "c"}', "-p", "ada")
    assert honcho("peer", "get-metadata", "ada")["metadata"] == {"plan": "c"}
    assert [peer["id"] for peer in honcho("peer", "list")] == ["ada", "bot"]
    assert [session["id"] for session in honcho("session", "list")] == ["talk"]
    assert honcho("workspace", "delete", "home", "--dry-run")["session_ids"] == ["talk"]
    honcho("session", "delete", "talk", "--yes")
    honcho("workspace", "delete", "home", "--yes")
    assert honcho("workspace", "list") == []


@pytest.mark.usefixtures("talked")
def test_what_was_said_is_found_by_every_command(honcho: Command) -> None:
    said = honcho("message", "create", "A heron, noted.", "-s", "talk", "-p", "bot")
    for found in (
        honcho("message", "list", "talk"),
        honcho("session", "view", "talk"),
        honcho("session", "context", "talk")["messages"],
        honcho("workspace", "search", "heron"),
        honcho("session", "search", "heron", "talk"),
        [*honcho("peer", "search", "heron", "-p", "ada"), honcho("message", "get", said["id"], "-s", "talk")],
    ):
        assert {message["content"] for message in found} == {"The heron stands in the reeds.", "A heron, noted."}
    for told in (
        honcho("peer", "chat", "heron", "-p", "ada")["response"],
        honcho("workspace", "chat", "heron")["response"],
        honcho("peer", "representation", "ada")["representation"],
        honcho("session", "representation", "ada", "talk")["representation"],
    ):
        assert "The heron stands in the reeds." in told
    assert honcho("session", "inspect", "talk")["message_count"] == 2
    assert honcho("session", "summaries", "talk")["short_summary"] is None
    assert honcho("workspace", "queue-status")["pending_work_units"] == 0


@pytest.mark.usefixtures("talked")
def test_conclusions_come_and_go(honcho: Command) -> None:
    pair = ("--observer", "bot", "--observed", "ada")
    kept = honcho("conclusion", "create", "likes herons", *pair)
    for found in (
        honcho("conclusion", "list", *pair),
        honcho("conclusion", "search", "herons", *pair),
        honcho("conclusion", "get", kept["id"]),
    ):
        assert [conclusion["content"] for conclusion in found] == ["likes herons"]
    assert honcho("conclusion", "derived", kept["id"]) == []
    assert honcho("peer", "inspect", "ada")["session_count"] == 1
    assert honcho("peer", "card", "ada")["card"] is None
    honcho("conclusion", "delete", kept["id"], *pair, "--yes")
    assert honcho("conclusion", "list", *pair) == []
