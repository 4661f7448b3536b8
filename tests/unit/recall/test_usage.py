from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
from support.hand_clock import HandClock

from honcho_exec.errors import Ambiguous, StateError, Unavailable
from honcho_exec.recall import usage as module
from honcho_exec.recall.cadence import Cadence
from honcho_exec.recall.usage import RecallUsage


def opened(path: Path, destination: str = "here", clock: HandClock | None = None) -> RecallUsage:
    return RecallUsage(path / "recall.db", destination=destination, clock=clock or HandClock())


def test_counting_touches_no_disk_and_flushing_keeps_it(tmp_path: Path) -> None:
    usage = opened(tmp_path / "state")
    usage.count("a", turns=1, characters=100)
    usage.count("a", turns=1, llm_calls=2)
    assert not (tmp_path / "state").exists()
    usage.flush()
    usage.close()
    assert stat.S_IMODE((tmp_path / "state" / "recall.db").stat().st_mode) == 0o600
    again = opened(tmp_path / "state")
    own, recent = again.costs("a")
    assert (own.turns, own.llm_calls, own.characters) == (2, 2, 100)
    assert recent == [own]
    again.close()


def test_destinations_do_not_meet(tmp_path: Path) -> None:
    mine, other = opened(tmp_path), opened(tmp_path, "elsewhere")
    mine.count("a", turns=3)
    mine.flush("a", Cadence(2, answered=3))
    cadence = Cadence(2)
    assert (other.restore("a", cadence), cadence.answered) == (0, None)
    assert other.costs("a")[0].turns == 0
    mine.close()
    other.close()


def test_a_cadence_stands_where_it_stood(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.count("a", turns=5)
    first.flush("a", Cadence(3, answered=4, tried=5, empty=2))
    first.close()
    second, cadence = opened(tmp_path), Cadence(3)
    assert second.restore("a", cadence) == 5
    assert cadence == Cadence(3, answered=-1, tried=0, empty=2)
    assert [cadence.is_due(turn) for turn in range(3)] == [False, False, True]
    second.count("a", turns=2)
    second.flush("a", cadence, before=5)
    third, later = opened(tmp_path), Cadence(3)
    assert third.restore("a", later) == 7
    assert later == Cadence(3, answered=-3, tried=-2, empty=2)
    second.close()
    third.close()


def test_a_request_that_surely_was_not_done_costs_nothing(tmp_path: Path) -> None:
    usage = opened(tmp_path)
    with pytest.raises(Unavailable), usage.llm_call("a"):
        raise Unavailable("refused", cause="connection")
    with pytest.raises(Ambiguous), usage.llm_call("a"):
        raise Ambiguous("timeout", cause="timeout")
    assert usage.costs("a")[0].llm_calls == 1
    usage.close()


def test_a_file_that_cannot_be_used_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "recall.db").write_bytes(b"not a database" * 100)
    usage = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            usage.count("a", turns=1)
            assert usage.restore("a", Cadence(1)) == 0
            usage.flush()
    assert len(caplog.records) == 1
    with pytest.raises(StateError):
        usage.costs("a")
    usage.close()


def test_the_sessions_not_used_for_longest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SESSIONS", 3)
    clock = HandClock()
    usage = opened(tmp_path, clock=clock)
    for number in range(5):
        clock.seconds += 1
        usage.count(f"s{number}", turns=1)
        usage.flush()
    assert [cost.session for cost in usage.costs("s4")[1]] == ["s4", "s3", "s2"]
    usage.close()
