"""The dialectic: one to three passes of questions about the user to Honcho's language model."""

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
"""Asks one question at one reasoning level; the answer is empty when nothing is known."""

Rewriter = Callable[[str], str]
"""Makes of a user's message a question to a memory; empty when it cannot."""

_log = logging.getLogger(__name__)

_LEVELS: tuple[str, ...] = get_args(Level)

# From how many characters of the request on the level is raised by one, and by one more.
_RAISED_FROM = (120, 400)

# An answer of so many characters, or of so many with a list or headings in it, needs no further pass.
_STRONG = 300
_STRONG_WITH_STRUCTURE = 100
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
    """Ask in `dialecticDepth` passes and return the deepest answer that says something, empty when none does.

    A pass after a strong answer is spared; one after an empty answer asks the first question again.

    Args:
        chat: asks Honcho; what it raises ends the passes.
        settings: how many passes, how deep, how much text.
        query: the user's latest message.
        warm: whether there is a conversation to ask about, and not only a user.
        current: whether `query` is the request that is about to be answered.
        question: what to ask first instead.
    """
    first = question or _first_question(query, warm=warm, current=current)
    answers: list[str] = []
    for level in levels(settings, query):
        if answers and _is_strong(answers[-1]):
            break
        asked = [first, f"{_GAPS}\n\n{_quoted(answers)}", f"{_RECONCILE}\n\n{_quoted(answers)}"][len(answers)]
        if answer := chat(cut_at_word(asked, settings.dialectic_max_input_chars), level).strip():
            answers.append(answer)
    return answers[-1] if answers else ""


def levels(settings: Settings, query: str) -> list[str]:
    """The reasoning level of each pass: the given ones, else a light beginning and then the base level.

    The base level is raised with the length of `query`, where that is wanted, and capped.
    """
    base: str = settings.dialectic_reasoning_level
    if settings.reasoning_heuristic:
        raised = _LEVELS.index(base) + sum(len(query) >= length for length in _RAISED_FROM)
        base = _LEVELS[min(raised, _LEVELS.index(settings.reasoning_level_cap))]
    proportional = {1: (base,), 2: ("minimal", base), 3: ("minimal", base, "low")}[settings.dialectic_depth]
    given = tuple(settings.dialectic_depth_levels or ())[: settings.dialectic_depth]
    return [*given, *proportional[len(given) :]]


def rewritten(rewrite: Rewriter, query: str, timeout: float) -> str:
    """What the rewriter makes of `query`; empty when it fails or takes longer than `timeout` seconds.

    It runs on a daemon thread of its own: it is the host's, nothing can cut it, and no exit must wait for it.
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
    return len(answer) > _STRONG or (len(answer) >= _STRONG_WITH_STRUCTURE and _STRUCTURE.search(answer) is not None)
