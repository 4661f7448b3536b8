"""What nobody foresaw, recorded without its text, which may quote what was said."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

__all__ = ["foreign", "record"]

T = TypeVar("T")


def record(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log that `what` failed, with the error's type and where it came from."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed unexpectedly with %s:\n%s", what, type(error).__name__, trace)


def foreign(log: logging.Logger, what: str, call: Callable[[], T], otherwise: T) -> T:
    """Call a function that is not ours; return `otherwise` if it raises anything, which is recorded.

    Also `CancelledError`, `SystemExit` and `KeyboardInterrupt` go no further: they would end a thread of ours.
    """
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - the boundary to code that is not ours
        record(log, what, error)
        return otherwise
