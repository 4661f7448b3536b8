"""Exceptions raised in a caller's thread where it does not expect them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import honcho_exec

__all__ = ["Interrupted", "interrupted_at"]

_OURS = str(Path(honcho_exec.__file__).parent)


class Interrupted(BaseException):
    """What a handler raises."""


def interrupted_at(number: int, call: Callable[[], object]) -> BaseException | None:
    """Interrupt a call at the given line of ours that its thread runs; return the exception, None if it has fewer.

    A line that only leaves a `with` block counts too: the interrupt comes before the block's `__exit__`.
    """
    left = number

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    # Objects of other tests are not collected meanwhile, so that their finalizers are not what is interrupted.
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    except Interrupted as interrupted:
        return interrupted
    finally:
        sys.settrace(before)
        gc.enable()
    return None
