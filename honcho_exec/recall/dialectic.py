"""Ask Honcho's language model about the user, in one to three passes."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import get_args

from honcho_exec.runtime.log import call_guarded
from honcho_exec.settings import Level, Settings
from honcho_exec.text.cleaning import cut_at_word

__all__ = ["Chat", "Rewriter", "ask", "levels", "rewritten"]

Chat = Callable[[str, str], str]
"""Asks a question at a reasoning level; the answer is empty if nothing is known."""

Rewriter = Callable[[str], str]
"""Turns a user's message into a question to a memory; empty if it cannot."""

_log = logging.getLogger(__name__)

_LEVELS: tuple[str, ...] = get_args(Level)

# Lengths of a request, in characters, from which its level is raised by one, and by one more.
_RAISED_FROM_CHARS = (120, 400)

# An answer longer than this, or this long with a list or headings in it, needs no further pass.
_STRONG_CHARS = 300
_STRONG_STRUCTURED_CHARS = 100
_STRUCTURE = re.compile(r"^[^\S\n]*(?:[-*•]|\d+[.)]|#+)[^\S\n]", re.MULTILINE)

_COLD = (
    "Who is the user? Say what would make an assistant useful to them from the first answer on: their preferences, "
    "their goals, what they are working on, and how they like to work."
)
_WARM = (
    "What do you know of the user that bears on what they are busy with in this conversation? What is current "
    "matters more than biography."
)
_CURRENT = "What do you know of the user that helps with the request below?"
_GAPS = (
    "Below is a first assessment of the user. What does it miss that would help from here on? Put together what you "
    "know of where they stand and what they need now, with recent sessions as the evidence."
)
_RECONCILE = (
    "Below are two assessments of the user, one after the other. Do they agree? Settle what contradicts itself, and "
    "give in a few sentences what matters most for this conversation."
)


def ask(
    chat: Chat, settings: Settings, query: str, *, warm: bool, current: bool = False, question: str | None = None
) -> str:
    """Ask in `dialecticDepth` passes and return the last answer that is not empty.

    There is no pass after a strong answer; a pass after an empty answer asks the first question again.

    Args:
        chat: asks Honcho; its exceptions end the passes.
        settings: the number of passes, their levels, and the length of questions.
        query: the user's latest message.
        warm: whether there is a conversation to ask about, and not only a user.
        current: whether `query` is the request that is about to be answered.
        question: replaces the first question.
    """
    first = question or _first_question(query, warm=warm, current=current)
    answers: list[str] = []
    for level in levels(settings, query):
        if answers and _is_strong(answers[-1]):
            break
        asking = [first, f"{_GAPS}\n\n{_quoted(answers)}", f"{_RECONCILE}\n\n{_quoted(answers)}"][len(answers)]
        if answer := chat(cut_at_word(asking, settings.dialectic_max_input_chars), level).strip():
            answers.append(answer)
    return answers[-1] if answers else ""


def levels(settings: Settings, query: str) -> list[str]:
    """Return the reasoning level of each pass: those of the settings, else a light one and then the base level.

    The base level is raised with the length of `query`, up to a cap, if the settings say so.
    """
    base: str = settings.dialectic_reasoning_level
    if settings.reasoning_heuristic:
        raised = _LEVELS.index(base) + sum(len(query) >= length for length in _RAISED_FROM_CHARS)
        base = _LEVELS[min(raised, _LEVELS.index(settings.reasoning_level_cap))]
    proportional = {1: (base,), 2: ("minimal", base), 3: ("minimal", base, "low")}[settings.dialectic_depth]
    chosen = tuple(settings.dialectic_depth_levels or ())[: settings.dialectic_depth]
    return [*chosen, *proportional[len(chosen) :]]


def rewritten(rewrite: Rewriter, query: str, timeout: float) -> str:
    """Return the rewritten `query`; empty if the rewriter fails or takes longer than `timeout` seconds.

    It runs on a daemon thread of its own: it belongs to the host, nothing can cut it, and no exit must wait for it.
    """
    outcome: Future[str] = Future()

    def run() -> None:
        outcome.set_result(call_guarded(_log, "the query rewriter", lambda: rewrite(query).strip(), ""))

    threading.Thread(target=copy_context().run, args=(run,), name="honcho-rewrite", daemon=True).start()
    try:
        return outcome.result(timeout)
    except TimeoutError:
        _log.info("the query rewriter takes too long; the usual question is asked instead")
        return ""


def _first_question(query: str, *, warm: bool, current: bool) -> str:
    if current:
        return f"{_CURRENT}\n\nThe request:\n{query}"
    opening = _WARM if warm else _COLD
    return f"{opening}\n\nTheir latest message:\n{query}" if query else opening


def _quoted(answers: Sequence[str]) -> str:
    return "\n\n".join(f"Assessment {number}:\n{answer}" for number, answer in enumerate(answers, 1))


def _is_strong(answer: str) -> bool:
    return len(answer) > _STRONG_CHARS or (
        len(answer) >= _STRONG_STRUCTURED_CHARS and _STRUCTURE.search(answer) is not None
    )
