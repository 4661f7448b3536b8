from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.commands import Cli
from support.faulty import FaultyServer, reset_after_work, status

from honcho_exec import HonchoProvider
from honcho_exec.embedded import EmbeddedHoncho

TURNS = 130


@pytest.fixture
def there(tmp_path: Path) -> Iterator[EmbeddedHoncho]:
    """What the server has, looked at beside it."""
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    yield honcho
    honcho.close()


@pytest.fixture
def filled(tmp_path: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """This machine's memory with something of every kind; from then on the server is in use."""
    monkeypatch.setenv("HONCHO_RETRY_MAX_WAIT", "0.05")
    environ = {"HOME": str(tmp_path), "HONCHO_EXEC_HOME": str(tmp_path / "state"), "HONCHO_PEER_NAME": "ada"}
    monkeypatch.setenv("HONCHO_EXEC_HOME", environ["HONCHO_EXEC_HOME"])
    with HonchoProvider("talk", environ=environ) as provider:
        for turn in range(TURNS):
            provider.remember("talk", "user", f"turn {turn}", created_at=f"2024-01-01T00:{turn % 60:02}:00Z")
        for args in ({"conclusion": "likes tea"}, {"conclusion": "likes bees"}):
            assert "error" not in json.loads(provider.handle_tool_call("honcho_conclude", args))
        assert "error" not in json.loads(provider.handle_tool_call("honcho_profile", {"card": ["Lives by a lake"]}))
        assert provider.flush(20) == 0
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    honcho = EmbeddedHoncho(tmp_path / "state" / "memory.db")
    records = list(honcho.export())
    honcho.close()
    return records


def said(records: list[dict[str, Any]]) -> Counter[str]:
    """What was said, concluded and kept, without what a server gives by itself: ids, and times of its own."""
    own = {"id", "created_at", "joined_at", "metadata", "token_count"}
    dropped = {"message": own - {"created_at"}, "conclusion": own, "member": own, "card": own}
    return Counter(
        json.dumps({name: record[name] for name in record if name not in dropped.get(record["kind"], own - {"id"})})
        for record in records
    )


def test_everything_goes_over_once_and_in_order(
    cli: Cli, filled: list[dict[str, Any]], there: EmbeddedHoncho, server: FaultyServer
) -> None:
    assert "130 messages" in cli("push", "--dry-run").stdout
    assert server.count("POST", "/messages$") == 0
    done = json.loads(cli("push", "--json").stdout)
    assert (done["sent"]["messages"], done["sent"]["conclusions"], done["refused"]) == (TURNS, 2, [])
    found = list(there.export())
    assert said(found) == said(filled)
    order = [record["content"] for record in found if record["kind"] == "message"]
    assert order == [f"turn {turn}" for turn in range(TURNS)]
    assert server.count("POST", "/messages$") == 2
    again = json.loads(cli("push", "--json").stdout)
    assert (sum(again["sent"].values()), again["already"]["messages"]) == (0, TURNS)
    assert list(there.export()) == found


@pytest.mark.parametrize("path", ["/messages$", "/conclusions$", "/sessions$", "/card$", "/peers$"])
def test_an_answer_that_is_lost_doubles_nothing(
    cli: Cli, filled: list[dict[str, Any]], there: EmbeddedHoncho, server: FaultyServer, path: str
) -> None:
    server.rule(match=("*", path), fault=reset_after_work(), times=1)
    assert cli("push").exit_code == 0
    assert said(list(there.export())) == said(filled)


def test_it_goes_on_where_it_was_stopped(
    cli: Cli, filled: list[dict[str, Any]], there: EmbeddedHoncho, server: FaultyServer
) -> None:
    def late(seen: Any) -> bool:
        return bool(seen.is_for("POST", "/messages$")) and server.count("POST", "/messages$") > 1

    server.rule(match=late, fault=status(503))
    stopped = cli("push")
    assert (stopped.exit_code, "Run it again" in stopped.stderr) == (1, True)
    assert [record["kind"] for record in there.export()].count("message") == 100
    server.heal()
    assert cli("push").exit_code == 0
    assert said(list(there.export())) == said(filled)


def test_one_refused_message_does_not_keep_the_others_back(
    cli: Cli, filled: list[dict[str, Any]], there: EmbeddedHoncho, server: FaultyServer
) -> None:
    def poisoned(seen: Any) -> bool:
        return bool(seen.is_for("POST", "/messages$")) and any(
            message["content"] == "turn 42" for message in seen.body_json["messages"]
        )

    server.rule(match=poisoned, fault=status(422))
    done = json.loads(cli("push", "--json").stdout)
    assert (done["sent"]["messages"], len(done["refused"])) == (TURNS - 1, 1)
    assert (said(filled) - said(list(there.export()))).total() == 1


def test_a_wrong_key_and_no_server_are_said(
    cli: Cli, filled: list[dict[str, Any]], server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filled
    server.rule(fault=status(401))
    refused = cli("push")
    assert (refused.exit_code, "refused the key (401)" in refused.stderr) == (1, True)
    assert len(server.requests) == 1
    monkeypatch.delenv("HONCHO_BASE_URL")
    assert "push needs a server" in cli("push").stderr


def test_what_the_server_has_on_a_card_stays(cli: Cli, filled: list[dict[str, Any]], server: FaultyServer) -> None:
    (card,) = (record for record in filled if record["kind"] == "card")
    url = f"{server.url}/v3/workspaces/{card['workspace']}/peers/{card['observer']}/card?target={card['target']}"
    httpx.put(url, json={"peer_card": ["Moved to the sea"]}, trust_env=False)
    done = json.loads(cli("push", "--json").stdout)
    assert len(done["kept"]) == 1
    assert httpx.get(url, trust_env=False).json() == {"peer_card": ["Moved to the sea"]}


@pytest.mark.parametrize("redact", [True, False])
def test_what_was_stored_with_its_secrets_goes_without_them(
    cli: Cli, there: EmbeddedHoncho, server: FaultyServer, monkeypatch: pytest.MonkeyPatch, redact: bool
) -> None:
    monkeypatch.setenv("HONCHO_REDACT", "false")
    secret = "sk-" + "abcdefghijklmnopqrstuvwxyz123456"
    assert cli("conclude", f"Uses {secret}").exit_code == 0
    assert cli("profile", "--set", f"Has {secret}").exit_code == 0
    with HonchoProvider("talk", environ={**os.environ}) as provider:
        provider.remember("talk", "user", "hello", metadata={"with": secret, "password": "hunter2"})
        provider.remember("talk", "user", "hello", source_key=f"a {secret}")
        provider.remember("talk", "user", "hello", source_key=f"a {secret[:-1]}7")
        assert provider.flush(20) == 0
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_REDACT", str(redact))
    assert cli("push").exit_code == 0
    sent = json.dumps(list(there.export()))
    assert (secret in sent) is not redact
    assert ("hunter2" in sent) is not redact
    assert sent.count("[redacted]") == (6 if redact else 0)
    assert sent.count("hello") == 3
