"""Recall in any order of turns, switches and answers: nothing stale, nothing of elsewhere, nothing twice."""

from __future__ import annotations

import re
import tempfile
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.hand_clock import HandClock
from support.manual_executor import ManualExecutor

from honcho_exec.model import Context, SessionRef
from honcho_exec.recall.recall import Recall
from honcho_exec.recall.usage import RecallUsage
from honcho_exec.runtime.lane import Lane
from honcho_exec.settings import Settings

TOKEN = re.compile(r"(fact|answer)-(\d+)")


class Echo:
    """A Honcho that answers with the number of what it was asked, and sometimes with nothing."""

    def __init__(self) -> None:
        self.silent = False
        self.asked: dict[str, list[int]] = {"fact": [], "answer": []}

    def within(self, _: object) -> AbstractContextManager[None]:
        return nullcontext()

    def session_context(self, _: str, *, tokens: int) -> Context:  # noqa: ARG002 - as the real one
        return Context()

    def peer_context(self, _: str, target: str | None, *, query: str | None = None) -> Context:
        if target is None or query is None:
            return Context()
        number = query.removeprefix("question-")
        self.asked["fact"].append(int(number))
        return Context(representation=f"fact-{number}")

    def chat(self, question: str, **_: object) -> str:
        if self.silent:
            return ""
        number = question.rsplit("question-", 1)[1]
        self.asked["answer"].append(int(number))
        return f"answer-{number}"


class RecallMachine(RuleBasedStateMachine):
    @initialize(base=st.integers(1, 3), dialectic=st.integers(1, 3))
    def begin(self, base: int, dialectic: int) -> None:
        self.every = {"fact": base, "answer": dialectic}
        self.honcho = Echo()
        self.folder = tempfile.TemporaryDirectory()
        self.usage = RecallUsage(Path(self.folder.name) / "recall.db", destination="here", clock=HandClock())
        chosen = Settings(
            base_url="http://h", context_cadence=base, dialectic_cadence=dialectic, first_turn_base_wait=0,
            first_turn_dialectic_wait=0,
        )  # fmt: skip
        self.recall = Recall(lambda _: self.honcho, chosen, self.usage, HandClock())  # type: ignore[arg-type,return-value]
        self.bases, self.dialectics = ManualExecutor(), ManualExecutor()
        self.recall._base_strand = Lane(self.bases)  # type: ignore[assignment] # it submits as a strand does
        self.recall._dialectic_strand = Lane(self.dialectics)  # type: ignore[assignment]
        self.ref = SessionRef("w", "a", "ada", "hermes")
        self.stretch = self.turns = self.ended = self.asked = 0
        self.known: dict[int, tuple[int, int]] = {}
        self.told: set[str] = set()

    def question(self, completed: int) -> str:
        self.asked += 1
        self.known[self.asked] = (self.stretch, completed)
        return f"question-{self.asked}"

    @rule(trivial=st.booleans())
    def turn_begins(self, trivial: bool) -> None:
        self.turns += 1
        self.see(self.recall.prefetch(self.ref, "ok" if trivial else self.question(self.turns - 1)))

    @rule(trivial=st.booleans())
    def turn_ends(self, trivial: bool) -> None:
        self.ended += 1
        if self.ended > self.turns:
            self.turns += 1
        self.recall.queue_prefetch(self.ref, "ok" if trivial else self.question(self.turns))

    @rule(silent=st.booleans())
    def whole_turn(self, silent: bool) -> None:
        self.turn_begins(trivial=False)
        self.base_comes()
        self.answer_comes(silent)
        self.turn_ends(trivial=False)
        self.base_comes()
        self.answer_comes(silent)

    @rule(session=st.sampled_from("abc"))
    def switch(self, session: str) -> None:
        self.ref = SessionRef("w", session, "ada", "hermes")
        self.recall.switch()
        self.stretch += 1
        self.turns = self.ended = 0

    @rule()
    def base_comes(self) -> None:
        self.step(self.bases)

    @rule(silent=st.booleans())
    def answer_comes(self, silent: bool) -> None:
        self.honcho.silent = silent
        self.step(self.dialectics)

    @staticmethod
    def step(executor: ManualExecutor) -> None:
        if executor.jobs:
            executor.step()

    def see(self, text: str) -> None:
        for kind, number in TOKEN.findall(text):
            stretch, completed = self.known[int(number)]
            assert stretch == self.stretch, "of another stretch"
            assert self.turns - completed <= 2 * self.every[kind], "stale"
            if kind == "answer":
                assert number not in self.told, "told twice"
                self.told.add(number)

    @invariant()
    def nothing_is_asked_more_often_than_its_cadence_says(self) -> None:
        for kind, numbers in self.honcho.asked.items():
            asked = [self.known[number] for number in numbers]
            for (one, earlier), (other, later) in pairwise(asked):
                assert one != other or later - earlier >= self.every[kind]

    def teardown(self) -> None:
        if hasattr(self, "usage"):
            self.recall.close()
            self.usage.close()
            self.folder.cleanup()


RecallMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRecallMachine = RecallMachine.TestCase
