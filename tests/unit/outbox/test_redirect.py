from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.paths import TESTS

from honcho_exec.clock import SystemClock
from honcho_exec.model import Conclusion, Message, SessionRef
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import Outbox

WRONG, RIGHT = "http://wrong:8000", "http://right:8000"


@contextmanager
def opened(home: Path, backend: str, workspace: str = "w") -> Iterator[Outbox]:
    holder = LeaseHolder(home / "holders")
    box = Outbox(
        home / "outbox.db",
        destination=f"{backend} {workspace}",
        holder=holder,
        clock=SystemClock(),
        max_rows=100_000,
    )
    try:
        yield box
    finally:
        box.close()
        holder.close()


def ref(session: str = "s", workspace: str = "w") -> SessionRef:
    return SessionRef(workspace, session, "ada", "hermes")


def said(text: str, key: str | None = None) -> Message:
    return Message(peer="ada", content=text, created_at=None, source_key=key)


def texts(box: Outbox) -> list[str]:
    return [row.write.content for row in box.inspection.rows() if isinstance(row.write, Message | Conclusion)]


def test_rows_keep_their_order_and_are_sent_as_one_stream(tmp_path: Path) -> None:
    with opened(tmp_path, WRONG) as wrong:
        wrong.admit("1", ref(), [said("a"), said("b")])
        wrong.admit("2", ref(), [Conclusion("likes tea", "hermes", "ada")])
        wrong.admit("3", ref("other"), [said("c")])
    with opened(tmp_path, RIGHT) as right:
        right.admit("4", ref(), [said("d")])
        (elsewhere,) = right.inspection.elsewhere()
        assert (elsewhere.destination, elsewhere.workspace) == (f"{WRONG} w", "w")
        assert (elsewhere.movable, elsewhere.ambiguous, elsewhere.parked, elsewhere.held) == (4, 0, 0, 0)
        moved = right.inspection.redirect(f"{WRONG} w", ["movable"])
        assert (moved.moved, moved.duplicates) == (4, 0)
        assert right.inspection.elsewhere() == []
        assert texts(right) == ["a", "b", "likes tea", "c", "d"]
        assert right.adopt() == 4
        batch = right.claim()
        assert batch is not None
        assert [write.content for write in batch.writes if isinstance(write, Message)] == ["a", "b", "d"]


def test_what_may_have_arrived_is_moved_only_on_request_and_still_looked_up(tmp_path: Path) -> None:
    with opened(tmp_path, WRONG) as wrong:
        wrong.admit("1", ref(), [said("a")])
        sent = wrong.claim()
        assert sent is not None
        wrong.mark_sent(sent.rows, may_land_for=0.0)
        wrong.admit("2", ref(), [said("b")])
    with opened(tmp_path, RIGHT) as right:
        (elsewhere,) = right.inspection.elsewhere()
        assert (elsewhere.movable, elsewhere.ambiguous) == (1, 1)
        assert right.inspection.redirect(f"{WRONG} w", ["movable"]).moved == 1
        assert texts(right) == ["b"]
        assert right.inspection.redirect(f"{WRONG} w", ["movable", "ambiguous"]).moved == 1
        right.adopt()
        batch = right.claim()
        assert batch is not None
        assert (batch.id, batch.must_verify, [row.turn for row in batch.rows]) == (sent.id, True, ["1"])


def test_parked_rows_stay_parked_and_are_moved_only_on_request(tmp_path: Path) -> None:
    with opened(tmp_path, WRONG) as wrong:
        wrong.admit("1", ref(), [said("a")])
        batch = wrong.claim()
        assert batch is not None
        wrong.park(batch, "refused")
    with opened(tmp_path, RIGHT) as right:
        assert right.inspection.redirect(f"{WRONG} w", ["movable", "ambiguous"]).moved == 0
        assert right.inspection.redirect(f"{WRONG} w", ["movable", "parked"]).moved == 1
        assert [row.error for row in right.inspection.rows(parked=True)] == ["refused"]


def test_rows_of_a_living_process_are_left_to_it(tmp_path: Path) -> None:
    with opened(tmp_path, WRONG) as wrong, opened(tmp_path, RIGHT) as right:
        wrong.admit("1", ref(), [said("a")])
        (elsewhere,) = right.inspection.elsewhere()
        assert (elsewhere.movable, elsewhere.held) == (0, 1)
        assert right.inspection.redirect(f"{WRONG} w", ["movable", "ambiguous", "parked"]).moved == 0
        assert texts(wrong) == ["a"]


def test_a_write_that_waits_there_already_is_dropped_as_a_duplicate(tmp_path: Path) -> None:
    fact = Conclusion("likes tea", "hermes", "ada")
    with opened(tmp_path, WRONG) as wrong:
        wrong.admit("1", ref(), [said("a", key="k1"), said("b", key="k2"), fact])
    with opened(tmp_path, RIGHT) as right:
        right.admit("2", ref(), [said("a", key="k1"), fact])
        moved = right.inspection.redirect(f"{WRONG} w", ["movable"])
        assert (moved.moved, moved.duplicates) == (1, 2)
        assert sorted(texts(right)) == ["a", "b", "likes tea"]
        # And what is moved keeps others out, as if it had been admitted here.
        assert right.admit("3", ref(), [said("b", key="k2"), fact]).added == 0


def test_a_row_keeps_its_workspace(tmp_path: Path) -> None:
    with opened(tmp_path, WRONG, "x") as wrong:
        wrong.admit("1", ref(workspace="x"), [said("a")])
    with opened(tmp_path, RIGHT, "w") as right:
        assert right.inspection.redirect(f"{WRONG} x", ["movable"]).moved == 1
        assert texts(right) == []
        assert right.inspection.elsewhere() == []
    with opened(tmp_path, RIGHT, "x") as right:
        assert texts(right) == ["a"]


REDIRECT = """
import sys
from pathlib import Path
from unit.outbox.test_redirect import RIGHT, WRONG, opened
with opened(Path(sys.argv[1]), RIGHT) as right:
    print("ready", flush=True)
    print(right.inspection.redirect(f"{WRONG} w", ["movable"]).moved)
"""


@pytest.mark.slow
def test_killed_and_concurrent_runs_lose_and_double_nothing(tmp_path: Path) -> None:
    count = 3_000
    with opened(tmp_path, WRONG) as wrong:
        for start in range(0, count, 100):
            wrong.admit(
                str(start), ref(), [said(str(start + number), key=f"k{start + number}") for number in range(100)]
            )
    for seconds in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08):
        killed, other = (start_redirect(tmp_path) for _ in range(2))
        assert killed.stdout is not None
        killed.stdout.readline()
        try:
            killed.wait(seconds)
        except subprocess.TimeoutExpired:
            killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert other.communicate(timeout=30)[1] == ""
        with opened(tmp_path, RIGHT) as right:
            assert right.inspection.elsewhere() == []
            assert [
                row.write.content for row in right.inspection.rows(limit=count * 2) if isinstance(row.write, Message)
            ] == [str(number) for number in range(count)]
            assert len({row.destination for row in right.inspection.rows(limit=count * 2)}) == 1
        # And back, for the next round.
        with opened(tmp_path, WRONG) as wrong:
            assert wrong.inspection.redirect(f"{RIGHT} w", ["movable"]).moved == count


def start_redirect(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", REDIRECT, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
    )
