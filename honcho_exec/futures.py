"""Futures that are settled from the start."""

from __future__ import annotations

from concurrent.futures import Future

from honcho_exec.errors import HonchoExecError
from honcho_exec.model import Receipt

__all__ = ["done", "failed"]


def done(receipt: Receipt) -> Future[Receipt]:
    """A Future that holds `receipt`."""
    future: Future[Receipt] = Future()
    future.set_result(receipt)
    return future


def failed(error: HonchoExecError) -> Future[Receipt]:
    """A Future that has failed with `error`."""
    future: Future[Receipt] = Future()
    future.set_exception(error)
    return future
