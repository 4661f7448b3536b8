from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import Cli, Program, WriteLines
from support.faulty import FaultyServer, hang

import honcho_exec

SAID: list[dict[str, object]] = [
    {"role": "user", "content": "I moved to Tromsø.", "created_at": "2025-03-01T09:30:00Z", "id": 17},
    {"role": "assistant", "content": "How is the light?"},
    {"role": "user", "content": "ok"},
    {"role": "user", "content": "ok"},
]


def _answer(cli: Cli, *args: str | Path, stdin: str | bytes = "") -> dict[str, Any]:
    done = cli("ingest", *map(str, args), "--json", stdin=stdin)
    assert (done.exit_code, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _hits(cli: Cli, query: str, *args: str) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = json.loads(cli("search", query, *args, "--json").stdout)["hits"]
    return hits


def test_says_how_many_went_in(cli: Cli, write_lines: WriteLines) -> None:
    path = write_lines("chat.jsonl", SAID)
    done = cli("ingest", str(path))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "4 of 4 messages were imported over 1 session.\n", "")
    done = cli("ingest", str(path))
    assert done.stdout == "0 of 4 messages were imported over 1 session, 4 were in Honcho already.\n"


def test_again_adds_only_what_is_new(cli: Cli, write_lines: WriteLines) -> None:
    path = write_lines("chat.jsonl", SAID)
    counts = {"messages": 4, "written": 4, "already": 0, "empty": 0, "kept": 0, "refused": 0, "sessions": 1}
    assert _answer(cli, path) == counts
    assert _answer(cli, path) == counts | {"written": 0, "already": 4}
    write_lines("chat.jsonl", [*SAID, {"role": "user", "content": "ok"}])
    assert _answer(cli, path) == counts | {"messages": 5, "written": 1, "already": 4}
    assert [hit["content"] for hit in _hits(cli, "ok")].count("ok") == 3


def test_the_fields_arrive(cli: Cli, write_lines: WriteLines) -> None:
    lines = [
        *SAID,
        {"role": "user", "name": "grace", "session": "harbour", "content": "The crane is blue.", "id": "x\x00y"},
        {"role": "user", "content": "Naive time.", "created_at": "2025-03-01T09:30:00"},
    ]
    assert _answer(cli, write_lines("my chat.jsonl", lines))["sessions"] == 2
    (moved,) = _hits(cli, "moved", "--limit", "1")
    assert (moved["peer"], moved["created_at"]) == ("ada", "2025-03-01T09:30:00+00:00")
    assert moved["metadata"]["source_id"] == 17
    assert moved["session"].startswith("my-chat-")
    (crane,) = _hits(cli, "crane", "--peer", "grace", "--limit", "1")
    assert (crane["peer"], crane["session"], crane["metadata"]["source_id"]) == ("grace", "harbour", "xy")
    assert _hits(cli, "naive", "--limit", "1")[0]["created_at"] == "2025-03-01T09:30:00+00:00"


def test_odd_text_is_fine(cli: Cli, here: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"role": "user", "content": "nul \\u0000 and \\ud800 and <|endoftext|>"}\r\n',
        b"\n   \n",
        b'{"role": "user", "content": "a line separator \xe2\x80\xa8 within"}\n',
        b'{"role": "user", "content": "  "}\n',
        b'{"role": "assistant", "content": "no line end"}',
    ]
    (here / "odd.jsonl").write_bytes(b"".join(lines))
    answer = _answer(cli, here / "odd.jsonl")
    assert (answer["messages"], answer["written"], answer["empty"]) == (4, 3, 1)
    assert _answer(cli, here / "odd.jsonl")["already"] == 3


def test_a_long_message_is_one_message(cli: Cli, write_lines: WriteLines) -> None:
    path = write_lines("long.jsonl", [{"role": "user", "content": "A sentence. " * 6000}])
    assert _answer(cli, path)["written"] == 1
    assert _answer(cli, path)["already"] == 1


def test_stdin(cli: Cli) -> None:
    text = "".join(json.dumps(line) + "\n" for line in SAID)
    assert _answer(cli, "-", stdin=text)["written"] == 4
    assert _hits(cli, "moved", "--limit", "1")[0]["session"] == "stdin"


def test_a_named_pipe(cli: Cli, here: Path) -> None:
    pipe = here / "pipe"
    os.mkfifo(pipe)
    text = "".join(json.dumps(line) + "\n" for line in SAID)
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    answer = _answer(cli, pipe)
    writer.join()
    assert answer["written"] == 4


def test_every_bad_line_is_named_before_anything_is_sent(cli: Cli, write_lines: WriteLines, here: Path) -> None:
    good = write_lines("good.jsonl", SAID)
    bad = write_lines(
        "bad.jsonl",
        [
            SAID[0],
            "nonsense",
            "",
            [1],
            {"role": "system", "content": "x"},
            {"content": "x", "role": "user", "created_at": "yesterday"},
            {"role": "user", "created_at": 1_700_000_000, "id": True, "session": " ", "name": 3},
            {"role": "user", "content": "x", "created_at": "0001-01-01T00:00:00+14:00"},
        ],
    )
    done = cli("ingest", str(good), "bad.jsonl")
    assert (done.exit_code, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Error: 6 lines are not messages, so nothing was sent:"
    assert lines[1].startswith("  bad.jsonl:2: is not JSON")
    assert lines[2].startswith("  bad.jsonl:4: must be an object such as")
    assert lines[3] == '  bad.jsonl:5: `role` must be "user" or "assistant", not "system"'
    assert lines[4].startswith("  bad.jsonl:6: `created_at` must be ISO 8601 such as")
    for field in ("content", "created_at", "id", "session", "name"):
        assert f"`{field}` must be" in lines[5]
    assert lines[6].startswith("  bad.jsonl:8: `created_at`")
    assert _answer(cli, good)["already"] == 0
    done = cli("ingest", str(bad), "--json")
    assert done.exit_code == 1
    known = json.loads(done.stdout)
    assert (known["cause"], known["retryable"]) == ("input", False)
    (here / "latin.jsonl").write_bytes('{"role": "user", "content": "Tromsø"}'.encode("latin-1"))
    assert "latin.jsonl:1: is not UTF-8 (byte 35 of the line)" in cli("ingest", "latin.jsonl").stderr


def test_the_list_of_bad_lines_is_capped(cli: Cli, write_lines: WriteLines) -> None:
    done = cli("ingest", str(write_lines("bad.jsonl", ["{}"] * 50 + ["[" * 100_000])))
    assert done.stderr.startswith("Error: 51 lines")
    assert done.stderr.splitlines()[-1] == "  and 31 more"
    assert len(done.stderr.splitlines()) == 22


def test_a_missing_file_is_wrong_use(cli: Cli, here: Path) -> None:
    for args in ([], ["missing.jsonl"], [str(here)], ["-", "--timeout", "0"]):
        assert cli("ingest", *args).exit_code == 2


@pytest.mark.parametrize("lines", [[], ["", ""], ['{"messages": []}'], ["[]"]], ids=repr)
def test_a_file_without_messages_names_the_known_formats(cli: Cli, write_lines: WriteLines, lines: list[str]) -> None:
    path = write_lines("empty.jsonl", lines)
    for args in ((), ("--dry-run",)):
        done = cli("ingest", str(path), *args)
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"there are no messages in {path}; known formats are JSON lines" in done.stderr
        done = cli("ingest", str(path), *args, "--json")
        assert (done.exit_code, json.loads(done.stdout)["cause"]) == (1, "input")


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_files_without_messages_among_others_are_named(cli: Cli, write_lines: WriteLines, more: list[str]) -> None:
    write_lines("full.jsonl", [{"role": "user", "content": "I like tea"}])
    write_lines("empty.jsonl", [])
    write_lines("list.json", ["[]"])
    done = cli("ingest", "empty.jsonl", "full.jsonl", "list.json", "-", *more)
    assert done.exit_code == 0
    assert "Warning: there are no messages in empty.jsonl, list.json, stdin" in done.stderr
    assert "full.jsonl" not in done.stderr


def test_files_that_share_a_session_are_warned_of(cli: Cli, write_lines: WriteLines) -> None:
    names = ("may/chat.jsonl", "june/chat.jsonl")
    files = [write_lines(name, [*SAID, {"role": "user", "content": name}]) for name in names]
    done = cli("ingest", *map(str, files))
    assert done.exit_code == 0
    assert "'chat', which become one session; a --session-prefix" in done.stderr
    assert done.stdout == "10 of 10 messages were imported over 1 session.\n"
    assert cli("ingest", *map(str, files)).stdout.endswith("10 were in Honcho already.\n")


def test_a_prefix_keeps_sessions_apart(cli: Cli, write_lines: WriteLines) -> None:
    files = [write_lines(name, [{**SAID[0], "session": "s"}]) for name in ("may.jsonl", "june.jsonl")]
    assert _answer(cli, *files, "--session-prefix", "{stem}-")["sessions"] == 2
    assert {hit["session"] for hit in _hits(cli, "moved")} == {"may-s", "june-s"}


def test_a_file_that_is_named_twice_is_read_once(cli: Cli, write_lines: WriteLines) -> None:
    path = write_lines("chat.jsonl", SAID)
    assert _answer(cli, path, "chat.jsonl")["messages"] == 4


@pytest.mark.usefixtures("unreachable")
def test_what_does_not_go_in_is_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch, write_lines: WriteLines) -> None:
    path = write_lines("chat.jsonl", SAID)
    done = cli("ingest", str(path), "--timeout", "0.3")
    assert done.exit_code == 1
    assert done.stdout == "0 of 4 messages were imported over 1 session.\n"
    assert done.stderr.startswith("Error: 4 are not delivered yet; they are in the outbox")
    assert "cannot be reached" in done.stderr
    done = cli("ingest", str(path), "--timeout", "0.3", "--json")
    assert done.exit_code == 1
    known = json.loads(done.stdout)
    assert (known["kept"], known["written"], known["retryable"]) == (4, 0, True)
    assert json.loads(cli("status", "--json").stdout)["pending"] == 4
    monkeypatch.delenv("HONCHO_BASE_URL")
    assert json.loads(cli("status", "--json").stdout)["elsewhere"] == 4


def test_a_typo_in_the_url_sends_nothing_anywhere(program: Program, write_lines: WriteLines) -> None:
    done = program("ingest", str(write_lines("chat.jsonl", SAID)), "--json", HONCHO_BASE_URL="htp://x")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["cause"] == "configuration"
    assert json.loads(program("status", "--json").stdout)["elsewhere"] == 0


def test_ctrl_c_ends_it_at_once_and_says_what_is_kept(
    server: FaultyServer, write_lines: WriteLines, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines("long.jsonl", [{"role": "user", "content": f"said {number}"} for number in range(1500)])
    server.rule(match=("POST", "/messages$"), fault=hang())
    monkeypatch.setenv("HONCHO_BASE_URL", server.url)
    with subprocess.Popen(
        [sys.executable, "-m", "honcho_exec", "ingest", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(Path(honcho_exec.__file__).parents[1])},
    ) as process:
        assert server.wait_count(1, "POST", "/messages$", timeout=30)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, told = process.communicate(timeout=30)
        # About a second on a quiet machine; a shutdown in order would take five and more.
        assert time.monotonic() - begun < 4
    assert process.returncode == 130
    kept = re.search(r"(\d+) messages are in the outbox", told)
    left = re.search(r"(\d+) were not read: run it again", told)
    assert kept is not None
    assert left is not None
    assert int(kept[1]) + int(left[1]) == 1500
    rows = json.loads(cli("outbox", "list", "--json", "--limit", "2000").stdout)["rows"]
    assert [row["text"] for row in rows] == [f"said {number}" for number in range(len(rows))]
    # The one that was just being stored is not told to be kept, and may be.
    assert len(rows) - int(kept[1]) in {0, 1}
