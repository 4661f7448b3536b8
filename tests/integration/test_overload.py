"""Turns that are given faster than they can be delivered are all stored, soon, and delivered later."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.paths import TOOLS

sys.path.insert(0, str(TOOLS))

from overload import overload

# A busy machine may stop everything for a moment; the benchmark measures at leisure.
SLOWEST_MEDIAN_MS = 20.0


@pytest.mark.parametrize("conversations", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_overload_refuses_no_turn_and_drains(tmp_path: Path, conversations: int) -> None:
    found = overload(tmp_path, conversations=conversations, rate=600, seconds=2)
    assert (found.refused, found.left) == (0, 0)
    assert found.turns == 1200
    assert found.call_p50 < SLOWEST_MEDIAN_MS
    assert found.drained_seconds < 60
