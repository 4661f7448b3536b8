from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import honcho_exec.runtime.idle
from honcho_exec.errors import Closed
from honcho_exec.runtime.shared_pool import SharedPool, Strand


def test_strands_share_a_bounded_number_of_threads() -> None:
    pool = SharedPool("some", 3)
    together = threading.Barrier(3)
    threads: set[int] = set()

    def job() -> None:
        threads.add(threading.get_ident())
        together.wait(10)

    strands = [Strand(pool) for _ in range(9)]
    for future in [strand.submit(job) for strand in strands]:
        future.result(10)
    assert len(threads) == 3
    for strand in strands:
        strand.close()


@given(jobs=st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_each_strand_runs_its_jobs_one_at_a_time_in_order(jobs: list[int]) -> None:
    pool = SharedPool("some", 4)
    strands = [Strand(pool) for _ in range(5)]
    done: list[list[int]] = [[] for _ in strands]
    inside = [0] * len(strands)

    def job(strand: int, number: int) -> None:
        inside[strand] += 1
        assert inside[strand] == 1
        done[strand].append(number)
        inside[strand] -= 1

    futures = [strands[strand].submit(partial(job, strand, number)) for number, strand in enumerate(jobs)]
    for future in futures:
        future.result(10)
    assert done == [[number for number, at in enumerate(jobs) if at == strand] for strand in range(len(strands))]
    for strand in strands:
        strand.close()


def test_a_failing_job_and_a_cancelled_one_hold_nothing_up() -> None:
    strand = Strand(SharedPool("some", 1))
    proceed = threading.Event()
    held = strand.submit(lambda: proceed.wait(10))
    failing: Future[object] = strand.submit(lambda: 1 / 0)
    cancelled = strand.submit(lambda: None)
    last = strand.submit(lambda: "done")
    assert cancelled.cancel()
    proceed.set()
    assert held.result(10)
    assert isinstance(failing.exception(10), ZeroDivisionError)
    assert last.result(10) == "done"
    strand.close()
    with pytest.raises(Closed):
        strand.submit(lambda: None)


def test_threads_that_nobody_needs_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honcho_exec.runtime.idle, "_IDLE_THREAD_SECONDS", 0.05)
    strand = Strand(SharedPool("some", 2))
    for _ in range(2):
        thread = strand.submit(threading.current_thread).result(10)
        thread.join(10)
        assert not thread.is_alive()
