"""Log unexpected errors without their texts, which may quote messages."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

__all__ = ["call_guarded", "log_unexpected"]

T = TypeVar("T")


def log_unexpected(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log that `what` failed, with the error's type and traceback."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed unexpectedly with %s:\n%s", what, type(error).__name__, trace)


def call_guarded(log: logging.Logger, what: str, call: Callable[[], T], otherwise: T) -> T:
    """Call a function of the program; if it raises anything, log that and return `otherwise`.

    Also `CancelledError`, `SystemExit` and `KeyboardInterrupt` are caught: they would end a thread of this package.
    """
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - the boundary to functions of the program
        log_unexpected(log, what, error)
        return otherwise
