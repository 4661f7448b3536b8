from __future__ import annotations

import json
from typing import Any

import pytest
from support.commands import Cli, WriteLines
from support.faulty import FaultyServer, status
from support.providers import MakeProvider

from honcho_exec.transfer.importer import ImportedMessage, Importer
from honcho_exec.transfer.sources import MessageLine

POST_MESSAGES = ("POST", r"/messages$")


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    monkeypatch.setenv("HONCHO_RETRY_ATTEMPTS", "1")


@pytest.fixture
def path(write_lines: WriteLines) -> str:
    return str(write_lines("chat.jsonl", [{"role": "user", "content": f"number {place}"} for place in range(250)]))


def _ingest(cli: Cli, path: str, code: int, *args: str) -> dict[str, Any]:
    done = cli("ingest", path, "--json", *args)
    assert done.exit_code == code
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_temporary_failure_is_waited_out(cli: Cli, server: FaultyServer, path: str) -> None:
    server.rule(match=POST_MESSAGES, fault=status(429), times=1)
    answer = _ingest(cli, path, 0)
    assert (answer["written"], answer["already"], answer["kept"]) == (250, 0, 0)
    assert _ingest(cli, path, 0)["already"] == 250


def test_a_message_delivered_between_two_attempts_counts_as_written(
    make_provider: MakeProvider, server: FaultyServer
) -> None:
    server.rule(match=POST_MESSAGES, fault=status(429), times=1)
    provider = make_provider(base_url=server.url, retry_attempts=1)

    def told(_done: int, trouble: str) -> None:
        if trouble:
            assert provider.flush(20) == 0

    importer = Importer(provider, patience=20, report=told)
    importer.add(ImportedMessage("s1", MessageLine("user", "number 1")))
    outcome = importer.finish()
    assert (outcome.written, outcome.duplicates) == (1, 0)


def test_a_wrong_key_is_not_waited_for(cli: Cli, server: FaultyServer, path: str) -> None:
    server.rule(fault=status(401))
    answer = _ingest(cli, path, 1)
    assert (answer["kept"], answer["cause"]) == (250, "auth")
    assert "HONCHO_API_KEY" in answer["error"]
    server.heal()
    _ingest(cli, path, 0)


def test_a_message_that_is_refused_is_counted(cli: Cli, server: FaultyServer, path: str) -> None:
    server.rule(
        match=lambda seen: seen.is_for(*POST_MESSAGES) and '"number 7"' in json.dumps(seen.body_json),
        fault=status(422),
    )
    answer = _ingest(cli, path, 1)
    assert (answer["written"], answer["refused"], answer["kept"]) == (249, 1, 0)
    assert "1 were refused" in answer["error"]


def test_a_full_outbox_is_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("HONCHO_OUTBOX_MAX_ROWS", "10")
    assert _ingest(cli, path, 0)["written"] == 250


def test_an_outbox_that_stays_full_is_reported(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, server: FaultyServer, path: str
) -> None:
    server.rule(fault=status(401))
    monkeypatch.setenv("HONCHO_OUTBOX_MAX_ROWS", "10")
    done = cli("ingest", path)
    assert done.exit_code == 1
    assert "the outbox is full (10 rows)" in done.stderr
