from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.commands import Cli
from support.faulty import FaultyServer, status
from support.locking import locked

from honcho_exec import HonchoProvider
from honcho_exec.embedded import EmbeddedHoncho

SECRET = 'Zanzibar "orchid" 4711'
CARD = ["Lives by a lake", f"Says {SECRET}"]


def fill(environ: dict[str, str]) -> None:
    """Two sessions of two people, of whom one says a secret, and things that are known of them."""
    with HonchoProvider("talk", environ=environ) as provider:
        for session, name, text in [
            ("talk", "ada", "hello there"),
            ("talk", "ada", f"remember {SECRET.upper()}, please"),
            ("talk", "ada", f"remember {SECRET}, please"),
            ("talk", "bob", "bob was here"),
            ("other", "bob", "bob was there"),
        ]:
            provider.remember(session, "user", text, name=name)
        for args in ({"conclusion": f"ada told of {SECRET}"}, {"conclusion": "ada likes tea"}):
            assert "error" not in json.loads(provider.handle_tool_call("honcho_conclude", args))
        assert "error" not in json.loads(provider.handle_tool_call("honcho_profile", {"card": CARD}))
        assert provider.flush(20) == 0


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    chosen = {"HOME": str(tmp_path), "HONCHO_EXEC_HOME": str(tmp_path / "state"), "HONCHO_PEER_NAME": "ada"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


@pytest.fixture
def kept(environ: dict[str, str], tmp_path: Path) -> Any:
    """Fill this machine's memory, and return what lists what it holds."""
    fill(environ)
    return lambda: records(tmp_path / "state" / "memory.db")


def records(path: Path) -> list[dict[str, Any]]:
    honcho = EmbeddedHoncho(path)
    found = list(honcho.export())
    honcho.close()
    return found


def of(found: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
    return [record[name] for record in found if record["kind"] == kind]


@contextmanager
def held(*files: Path) -> Iterator[None]:
    """Another process has the files open, so that nobody else's closing empties their logs."""
    connections = [sqlite3.connect(file) for file in files]
    for connection in connections:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    yield
    for connection in connections:
        connection.close()


def ghosts(folder: Path, words: str) -> list[str]:
    """The files that hold some of the words' bytes."""
    return [path.name for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


def test_first_it_only_looks(cli: Cli, kept: Any) -> None:
    before = kept()
    for args in (["--text", SECRET], ["--text", SECRET, "--dry-run"], ["--everything", "--json"]):
        done = cli("purge", *args)
        assert done.exit_code == 0
    told = cli("purge", "--text", SECRET.lower()).stdout
    assert "2 messages, 1 conclusion, 1 card" in told
    assert "Nothing matches" in cli("purge", "--peer", "nobody").stdout
    assert kept() == before
    for args in ([], ["--peer", "a", "--text", "b"], ["--text", " "]):
        assert cli("purge", *args).exit_code == 2


def test_a_text_is_gone_from_the_files_too(cli: Cli, kept: Any, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert "memory.db" in ghosts(state, "Zanzibar")
    with held(state / "memory.db", state / "outbox.db"):
        done = cli("purge", "--text", SECRET, "--yes")
        assert (done.exit_code, done.stderr) == (0, "")
        for words in ("Zanzibar", "ZANZIBAR", "zanzibar", "orchid", "4711"):
            assert ghosts(state, words) == []
    found = kept()
    assert of(found, "message", "content") == ["hello there", "bob was here", "bob was there"]
    assert of(found, "conclusion", "content") == ["ada likes tea"]
    assert of(found, "card", "lines") == [["Lives by a lake"]]
    assert "hello there" in cli("search", "hello").stdout


@pytest.mark.parametrize("text", ["honcho", "_", '"', "0"])
def test_only_what_people_gave_is_looked_at(cli: Cli, environ: dict[str, str], kept: Any, text: str) -> None:
    with HonchoProvider("talk", environ=environ) as provider:
        beside: dict[str, str | int | float] = {"mood": f"so {text} so", "n": 77}
        provider.remember("talk", "user", "x", source_key="a", metadata=beside).result(10)
        provider.remember("talk", "user", "x", source_key="b", metadata={"mood": "calm"}).result(10)
    said = of(kept(), "message", "content")
    assert cli("purge", "--text", text, "--yes").exit_code in (0, 1)
    assert of(kept(), "message", "content") == [one for one in said[:-2] if text not in one] + ["x"]
    assert "Stays" not in cli("purge", "--text", "77", "--yes").stderr


def test_a_text_is_found_however_its_accents_and_case_are_encoded(cli: Cli, environ: dict[str, str], kept: Any) -> None:
    with HonchoProvider("accents", environ=environ) as provider:
        for said in ("at the Cafe\u0301", "how na\u00efve", "Große Straße"):
            provider.remember("accents", "user", said).result(10)
    before = len(of(kept(), "message", "content"))
    for number, text in enumerate(("CAF\u00c9", "nai\u0308ve", "STRASSE"), 1):
        done = cli("purge", "--text", text, "--yes")
        assert (done.exit_code, done.stderr) == (0, "")
        assert len(of(kept(), "message", "content")) == before - number


def test_what_somebody_still_reads_is_said_again_each_time(
    cli: Cli, kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.embedded.store.database._BUSY_SECONDS", 0.1)
    reader = sqlite3.connect(tmp_path / "state" / "memory.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM message").fetchone()
    for _ in range(2):
        done = cli("purge", "--text", SECRET, "--yes")
        assert (done.exit_code, "memory.db may still hold the text" in done.stderr) == (1, True)
    reader.close()
    done = cli("purge", "--text", SECRET, "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert ghosts(tmp_path / "state", "Zanzibar") == []
    assert len(kept()) > 5


def test_a_text_that_is_in_a_name_is_said(cli: Cli, kept: Any) -> None:
    done = cli("purge", "--text", "alk", "--yes")
    assert (done.exit_code, "the name of the session talk (purge --session talk)" in done.stderr) == (1, True)
    assert "talk" in of(kept(), "session", "id")


def test_a_session_is_gone_and_others_stay(cli: Cli, kept: Any, tmp_path: Path) -> None:
    assert cli("purge", "--session", "talk", "--yes").exit_code == 0
    found = kept()
    assert of(found, "session", "id") == ["other"]
    assert of(found, "message", "content") == ["bob was there"]
    assert of(found, "conclusion", "content") == []
    assert ghosts(tmp_path / "state", "hello there") == []


def test_a_peer_is_gone_and_others_stay(cli: Cli, kept: Any, tmp_path: Path) -> None:
    assert cli("purge", "--peer", "ada", "--yes").exit_code == 0
    found = kept()
    assert sorted(of(found, "peer", "id")) == ["bob", "hermes"]
    assert of(found, "message", "content") == ["bob was here", "bob was there"]
    assert (of(found, "conclusion", "content"), of(found, "card", "lines")) == ([], [])
    assert ghosts(tmp_path / "state", "hello there") == []


def test_everything_is_of_the_workspace_in_use_unless_it_is_said(
    cli: Cli, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_WORKSPACE", "another")
    assert cli("conclude", "of another").exit_code == 0
    assert cli("purge", "--everything", "--yes").exit_code == 0
    assert of(kept(), "workspace", "id") == ["hermes"]
    assert len(of(kept(), "message", "content")) == 5
    assert cli("purge", "--everything", "--all-workspaces", "--yes").exit_code == 0
    assert [record["kind"] for record in kept()] == ["honcho_exec"]


def test_everything_gives_the_space_back_or_says_what_is_in_the_way(
    cli: Cli, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honcho_exec.embedded.store.database._BUSY_SECONDS", 0.2)
    home = tmp_path / "state"
    for name, url in (("memory.db", {}), ("outbox.db", {"HONCHO_BASE_URL": "http://127.0.0.1:9"})):
        with HonchoProvider("talk", environ=environ | url) as provider:
            for number in range(40):
                provider.sync_turn(f"{number}" + "x" * 40_000, "")
            provider.flush(0 if url else 20)
        assert (home / name).stat().st_size > 1_500_000
    with locked(home / "memory.db", "BEGIN;SELECT count(*) FROM message"):
        done = cli("purge", "--everything", "--all-workspaces", "--yes")
        assert "Not deleted: the empty space in memory.db, as long as another process reads it" in done.stderr
    assert (home / "outbox.db").stat().st_size < 200_000
    assert cli("purge", "--everything", "--all-workspaces", "--yes").stderr == ""
    assert (home / "memory.db").stat().st_size < 200_000


@pytest.mark.usefixtures("unreachable")
def test_what_waits_in_the_outbox_is_never_delivered(cli: Cli, environ: dict[str, str], tmp_path: Path) -> None:
    with HonchoProvider("talk", environ=environ | {"HONCHO_BASE_URL": "http://127.0.0.1:9"}) as provider:
        provider.sync_turn(f"remember {SECRET}", "noted")
    with held(tmp_path / "state" / "outbox.db"):
        done = cli("purge", "--text", SECRET, "--yes")
        assert "cannot be reached" in done.stderr
        assert ghosts(tmp_path / "state", "Zanzibar") == []
    assert [row["text"] for row in json.loads(cli("outbox", "list", "--json").stdout)["rows"]] == ["noted"]


@pytest.fixture
def there(environ: dict[str, str], server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fill a server's memory, and return what lists what it holds."""
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    fill(environ | {"HONCHO_BASE_URL": server.url})
    return lambda: records(tmp_path / "server" / "memory.db")


def test_on_a_server_what_can_be_deleted_is_and_the_rest_is_said(cli: Cli, there: Any) -> None:
    before = there()
    assert "2 messages of the session talk" in cli("purge", "--text", SECRET, "--dry-run").stderr
    assert there() == before
    done = cli("purge", "--text", SECRET, "--yes")
    assert done.exit_code == 1
    assert "2 messages of the session talk: a server deletes only whole sessions (purge --session talk)" in done.stderr
    assert of(there(), "conclusion", "content") == ["ada likes tea"]
    assert of(there(), "card", "lines") == [["Lives by a lake"]]
    assert cli("purge", "--session", "talk", "--yes").exit_code == 0
    assert of(there(), "message", "content") == ["bob was there"]
    done = cli("purge", "--everything", "--yes", "--json")
    assert json.loads(done.stdout)["left"] == [
        "on the server: the names of the workspace and its peers: a server deletes no peers"
    ]
    assert of(there(), "message", "content") == []


def test_a_server_that_fails_is_said(cli: Cli, there: Any, server: FaultyServer) -> None:
    server.rule(match=("DELETE", ""), fault=status(503))
    done = cli("purge", "--text", SECRET, "--yes")
    assert (done.exit_code, "failed (503); run it again" in done.stderr) == (1, True)
    assert len(of(there(), "conclusion", "content")) == 2
