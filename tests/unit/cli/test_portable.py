from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import Cli

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import InputError

NAMES = st.sampled_from(["ada", "bot", "eve"])
PLACES = st.sampled_from(["one", "two"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    max_size=3,
)
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("message"), PLACES, NAMES, TEXTS, DOCUMENTS),
        st.tuples(st.just("conclusion"), PLACES, NAMES, TEXTS.filter(bool), NAMES),
        st.tuples(st.just("card"), PLACES, NAMES, st.lists(TEXTS, max_size=3), NAMES),
        st.tuples(st.just("join"), PLACES, NAMES, st.booleans(), st.none() | st.booleans()),
        st.tuples(st.just("leave"), PLACES, NAMES),
        st.tuples(st.just("delete"), PLACES),
    ),
    max_size=12,
)


def write(http: httpx.Client, kind: str, place: str, *rest: object) -> None:
    workspace, session = f"/v3/workspaces/{place}", f"/v3/workspaces/{place}/sessions/s-{place}"
    match kind, rest:
        case "message", (peer, content, metadata):
            body = {"messages": [{"peer_id": peer, "content": content, "metadata": metadata}]}
            http.post(f"{session}/messages", json=body)
        case "conclusion", (peer, content, about):
            http.post(f"{workspace}/peers", json={"id": peer})
            http.post(f"{workspace}/peers", json={"id": about})
            body = {"conclusions": [{"content": content, "observer_id": peer, "observed_id": about}]}
            http.post(f"{workspace}/conclusions", json=body)
        case "card", (peer, lines, target):
            http.put(f"{workspace}/peers/{peer}/card", params={"target": str(target)}, json={"peer_card": lines})
        case "join", (peer, me, others):
            http.post(f"{session}/peers", json={str(peer): {"observe_me": me, "observe_others": others}})
        case "leave", (peer,):
            http.request("DELETE", f"{session}/peers", json=[peer])
        case _:
            http.delete(session)


def lines(honcho: EmbeddedHoncho) -> list[str]:
    return [json.dumps(record) for record in honcho.export()]


@given(WRITES)
@settings(max_examples=40, deadline=None)
def test_what_is_imported_is_exported_to_the_letter(writes: list[tuple[str, ...]]) -> None:
    with TemporaryDirectory() as folder:
        first, second = (EmbeddedHoncho(Path(folder) / name) for name in ("a.db", "b.db"))
        with httpx.Client(transport=httpx.WSGITransport(app=first.app), base_url="http://x") as http:
            for one in writes:
                write(http, *one)
        exported = lines(first)
        records = [(f"line {number}", json.loads(line)) for number, line in enumerate(exported, 1)]
        counts = second.load(records)
        assert (counts["already"], counts.total()) == (0, len(exported) - 1)
        assert lines(second) == exported
        assert second.load(records).total() == second.load(records)["already"] == len(exported) - 1
        assert lines(second) == exported
        first.close()
        second.close()


def test_a_memory_moves_to_another_machine(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("conclude", "Nadia keeps bees").exit_code == 0
    assert cli("export", "a.jsonl").exit_code == 0
    assert stat.S_IMODE((here / "a.jsonl").stat().st_mode) == 0o600
    assert cli("export", "-").stdout_bytes == (here / "a.jsonl").read_bytes()
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(here / "other"))
    refused = cli("export", "b.jsonl")
    assert (refused.exit_code, "there is no memory on this machine" in refused.output) == (1, True)
    assert sorted(path.name for path in here.iterdir()) == ["a.jsonl"]
    assert "1 conclusion" in cli("import", "a.jsonl").stdout
    assert "Imported nothing" in cli("import", "-", stdin=(here / "a.jsonl").read_bytes()).stdout
    cli("export", "b.jsonl")
    assert (here / "b.jsonl").read_bytes() == (here / "a.jsonl").read_bytes()
    assert "Nadia keeps bees" in cli("conclude", "--list").stdout


@pytest.mark.parametrize("redact", [True, False])
def test_imported_records_hold_no_secret(cli: Cli, monkeypatch: pytest.MonkeyPatch, here: Path, redact: bool) -> None:
    secret = "sk-" + "abcdefghijklmnopqrstuvwxyz123456"
    monkeypatch.setenv("HONCHO_REDACT", "false")
    assert cli("conclude", f"Uses {secret}").exit_code == 0
    assert cli("export", "a.jsonl").exit_code == 0
    monkeypatch.setenv("HONCHO_EXEC_HOME", str(here / "other"))
    monkeypatch.setenv("HONCHO_REDACT", str(redact))
    assert cli("import", "a.jsonl").exit_code == 0
    stored = b"".join(path.read_bytes() for path in (here / "other").rglob("memory.db*"))
    assert (secret.encode() in stored) is not redact
    nested = json.dumps(HEAD) + "\n" + '{"kind": "workspace", "metadata": {"a": ' + "[" * 900 + "]" * 900 + "}}"
    assert "nothing was imported" in cli("import", "-", stdin=nested.encode()).output


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_import_of_nothing_fails_and_makes_nothing(cli: Cli, tmp_path: Path, here: Path, content: str) -> None:
    (here / "empty.jsonl").write_text(content)
    done = cli("import", "empty.jsonl")
    assert done.exit_code == 1
    assert "no records in empty.jsonl" in done.stderr
    answer = json.loads(cli("import", "-", "--json", stdin=content).stdout)
    assert (answer["cause"], "no records in stdin" in answer["error"]) == ("input", True)
    assert not list(tmp_path.rglob("memory.db"))


def test_only_a_file_is_replaced(cli: Cli, here: Path) -> None:
    assert cli("conclude", "Nadia keeps bees").exit_code == 0
    os.mkfifo(here / "pipe")
    (here / "link").symlink_to(here / "linked")
    with ThreadPoolExecutor(1) as beside:
        read = beside.submit((here / "pipe").read_bytes)
        assert [cli("export", name).exit_code for name in ("pipe", "link")] == [0, 0]
    assert ((here / "pipe").is_fifo(), (here / "link").is_symlink()) == (True, True)
    assert read.result() == (here / "linked").read_bytes()
    refused = cli("export", "nowhere/a.jsonl")
    assert (refused.exit_code, "nowhere is not a folder" in refused.output) == (2, True)


HEAD = {"kind": "honcho_exec", "version": 1}
PLACE = {
    "kind": "workspace",
    "id": "w",
    "metadata": {},
    "configuration": {},
    "created_at": "2025-03-01T09:30:00.000000Z",
}


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        (["x"], "line 1: must be a JSON object"),
        ([PLACE], "line 1: is not an export of honcho_exec"),
        ([{**HEAD, "version": 2}], "line 1: the export is of version 2"),
        ([HEAD, PLACE, {"kind": "secret"}], "line 3: `kind` must be one of"),
        ([HEAD, {**PLACE, "id": "../w"}], "line 2: String should match pattern"),
        ([HEAD, {**PLACE, "metadata": []}], "line 2: `metadata` must be an object"),
        ([HEAD, {**PLACE, "created_at": "yesterday"}], "line 2: `created_at` must be a time"),
        ([HEAD, PLACE, {**PLACE, "kind": "peer"}], "names the workspace"),
        ([HEAD, PLACE, {**PLACE, "kind": "peer", "workspace": "elsewhere"}], "names the workspace 'elsewhere'"),
        (
            [HEAD, PLACE, {"kind": "card", "workspace": "w", "observer": "a", "target": "b", "lines": []}],
            "the peer 'a'",
        ),
    ],
)
def test_a_record_that_cannot_be_stored_is_named_and_nothing_is(
    tmp_path: Path, records: list[object], wrong: str
) -> None:
    honcho = EmbeddedHoncho(tmp_path / "memory.db")
    with pytest.raises(InputError, match="nothing was imported") as raised:
        honcho.load([(f"line {number}", record) for number, record in enumerate(records, 1)])
    assert wrong in str(raised.value)
    assert lines(honcho) == [json.dumps(HEAD)]
    honcho.close()
