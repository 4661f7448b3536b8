from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hermes_state import SessionDB

from honcho_exec.cli.main import main


@pytest.mark.usefixtures("hermes_environ")
def test_the_hosts_own_sessions_come_in_once(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    host = SessionDB(store)
    host.create_session("20250101_a1", "cli", user_id="ada")
    host.append_message("20250101_a1", "user", "I keep bees.", timestamp=1735689600.0)
    host.append_message("20250101_a1", "assistant", None, tool_calls=[{"id": "c1"}])
    host.append_message("20250101_a1", "tool", "42", tool_name="search")
    host.append_message("20250101_a1", "user", [{"type": "text", "text": "And this?"}, {"type": "image_url"}])
    host.append_message("20250101_a1", "assistant", "A hive.")
    # The host may be running.
    run = CliRunner()
    told = json.loads(run.invoke(main, ["ingest", str(store), "--dry-run", "--json"]).stdout)
    assert told["sessions"] == {"20250101_a1": 3}
    for written in (3, 0):
        assert json.loads(run.invoke(main, ["ingest", str(store), "--json"]).stdout)["written"] == written
    hit = json.loads(run.invoke(main, ["search", "bees", "--json"]).stdout)["hits"][0]
    assert (hit["session"], hit["content"], hit["created_at"][:10]) == ("20250101_a1", "I keep bees.", "2025-01-01")
    host.close()


@pytest.mark.usefixtures("hermes_environ")
def test_what_the_host_put_away_to_save_room_comes_in_once_too(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    host = SessionDB(store)
    host.create_session("s", "cli")
    for text in ("one", "two", "ok"):
        host.append_message("s", "user", text)
    summary = {"role": "assistant", "content": "[CONTEXT COMPACTION — REFERENCE ONLY] Earlier turns were compacted"}
    host.archive_and_compact("s", [{"role": "user", "content": "one"}, summary, {"role": "user", "content": "ok"}])
    host.append_message("s", "assistant", "go on")
    host.append_message("s", "user", "ok")
    host.close()
    run = CliRunner()
    assert run.invoke(main, ["ingest", str(store)]).exit_code == 0
    records = map(json.loads, run.invoke(main, ["export", "-"]).stdout.splitlines())
    said = [record["content"] for record in records if record["kind"] == "message"]
    assert said == ["one", "two", "ok", "go on", "ok"]
