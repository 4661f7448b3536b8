"""What is put before a turn: fetched in the background, on threads of its own, never late and never stale."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from honcho_exec.clock import Clock, Deadline
from honcho_exec.forks import PerProcess
from honcho_exec.model import SessionRef
from honcho_exec.recall.base_context import DIALECTIC_RANK, fetch_base_context, presentable
from honcho_exec.recall.cadence import Cadence, is_trivial
from honcho_exec.recall.dialectic import Rewriter, ask, rewritten
from honcho_exec.recall.layer import Layer
from honcho_exec.recall.usage import RecallUsage
from honcho_exec.runtime.shared_pool import SharedPool, Strand
from honcho_exec.settings import Settings
from honcho_exec.text.budget import CHARS_PER_TOKEN, Section, compose
from honcho_exec.text.cleaning import cut_at_word, storable
from honcho_exec.text.neutralize import without_thinking

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Recall"]

T = TypeVar("T")

# A gateway's conversations share these threads; two kinds, so that an answer that takes long holds nothing else back.
_base_pool = PerProcess(partial(SharedPool, "honcho-recall", 16))
_dialectic_pool = PerProcess(partial(SharedPool, "honcho-dialectic", 16))

# How long a turn waits in the current-query mode, where the request timeout is longer (seconds).
_LONGEST_SYNC = 5.0


class _Stretch:
    """The turns from one switch of the session to the next; nothing of it is shown in another.

    Attributes:
        turns: how many have begun in this stretch.
        ended: how many have ended; one that was interrupted never does.
        announced: whether the last was announced and has not been recalled for yet.
        before: how many turns the session had when this stretch began; None until that is known.
        base_shown: whether the base context has been put before a turn.
    """

    def __init__(self, ref: SessionRef) -> None:
        self.ref = ref
        self.turns = 0
        self.ended = 0
        self.announced = False
        self.before: int | None = None
        self.base_shown = False
        self.base: Layer[list[Section]]
        self.dialectic: Layer[str]

    def end(self) -> None:
        self.base.end()
        self.dialectic.end()


class Recall:
    """Base context and dialectic of a conversation, each in its own cadence and beside each other.

    A turn waits for neither, save the first one and in the current-query mode, and then as long as the settings say.
    Without a language model there is no dialectic: the embedded Honcho would quote what the base context quotes.

    Args:
        connect: gives the API once the session is there, waiting for it until the deadline; called on the threads.
        decided: gives the session to read, once it is there; see `Conversation.decided`.
        settings: which of all that is wanted, how often, and how much of it.
        ledger: where is counted what it costs, and where the cadence survives a restart.
        clock: where time comes from.
        rewrite: the host's query rewriter, if it has one.
        shared: whether other people talk to the same assistant.
        abandon: a method that cuts the requests when the interpreter exits.
    """

    def __init__(
        self,
        connect: Callable[[Deadline], HonchoApi],
        settings: Settings,
        ledger: RecallUsage,
        clock: Clock,
        *,
        decided: Callable[[SessionRef], SessionRef] = lambda ref: ref,
        rewrite: Rewriter | None = None,
        shared: bool = False,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._decided = decided
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._shared = shared
        self._rewrite = rewrite if settings.query_rewrite else None
        self._observes_others = settings.observes(ai=True)[1]
        self._lock = threading.Lock()
        self._base_strand = Strand(_base_pool(), abandon=abandon)
        self._dialectic_strand = Strand(_dialectic_pool(), abandon=abandon)
        self._stretch: _Stretch | None = None
        self._switched = False
        self._announces = False

    def announce(self, ref: SessionRef) -> None:
        """A turn begins, for which `before` may be called or not."""
        with self._lock:
            self._announces = True
            self._begin_turn(ref).announced = True

    def before(self, ref: SessionRef, query: str) -> str:
        """What to put before the turn that answers `query`; the first turn waits for it as long as the settings say."""
        query = storable(query, mask=self._settings.redact)
        with self._lock:
            stretch = self._current(ref)
            # A host that announces its turns may ask several times in one.
            if not stretch.announced and not (self._announces and stretch.ended < stretch.turns):
                self._begin_turn(ref)
            stretch.announced = False
        if self._settings.recall_sync:
            text = "" if is_trivial(query) else self._now(stretch, query)
        else:
            if not is_trivial(query):
                self._warm_up(stretch, query)
            text = self._at_hand(stretch)
        self._ledger.count(ref.session, characters=len(text))
        return text

    def after(self, ref: SessionRef, query: str) -> None:
        """Begin to fetch what is put before the turn after this one, as far as it is due."""
        query = storable(query, mask=self._settings.redact)
        with self._lock:
            stretch = self._current(ref)
            stretch.announced = False
            stretch.ended += 1
            if stretch.ended > stretch.turns:
                self._begin_turn(ref)
        if self._settings.recall_sync or is_trivial(query):
            self._base_strand.post(lambda: self._save(stretch))
            return
        if self._wants_base(stretch):
            self._ask_base(stretch, stretch.turns, query)
        if self._settings.has_model:
            self._ask_dialectic(stretch, stretch.turns, query)

    def asked_by_hand(self, ref: SessionRef) -> None:
        """The model has asked Honcho itself in this turn: that takes the dialectic's turn."""
        with self._lock:
            stretch = self._stretch
        if stretch is not None and stretch.ref == ref:
            stretch.dialectic.cadence.note_answer(stretch.turns)

    def switch(self) -> None:
        """The conversation goes on elsewhere, or is not what it was: drop all that was asked for."""
        with self._lock:
            if self._stretch is not None:
                self._leave(self._stretch)

    def close(self) -> None:
        """Ask no more; a request under way is cut by closing the backend."""
        with self._lock:
            stretch = self._stretch
        if stretch is not None:
            stretch.end()
        self._base_strand.close()
        self._dialectic_strand.close()
        if stretch is not None:
            self._save(stretch)

    def _current(self, ref: SessionRef) -> _Stretch:
        if self._stretch is not None and self._stretch.ref != ref:
            self._leave(self._stretch)
        if self._stretch is None:
            self._stretch = self._new_stretch(ref)
        return self._stretch

    def _leave(self, stretch: _Stretch) -> None:
        stretch.end()
        self._base_strand.post(lambda: self._save(stretch))
        self._stretch, self._switched = None, True

    def _new_stretch(self, ref: SessionRef) -> _Stretch:
        stretch = _Stretch(ref)

        def save() -> None:
            self._save(stretch)

        def restore() -> None:
            if stretch.before is None:
                stretch.before = self._ledger.restore(ref.session, stretch.dialectic.cadence)

        stretch.base = Layer(
            "base context", self._base_strand, Cadence(self._settings.context_cadence), around=(lambda: None, save)
        )
        stretch.dialectic = Layer(
            "dialectic",
            self._dialectic_strand,
            Cadence(self._settings.dialectic_cadence),
            dear=True,
            around=(restore, save),
        )
        return stretch

    def _begin_turn(self, ref: SessionRef) -> _Stretch:
        stretch = self._current(ref)
        stretch.turns += 1
        self._ledger.count(ref.session, turns=1)
        return stretch

    def _warm_up(self, stretch: _Stretch, query: str) -> None:
        """Ask for what is not at hand; the first turn waits for it."""
        completed = stretch.turns - 1
        start = self._clock.monotonic()
        waits: list[tuple[Future[Any], float]] = []
        if self._wants_base(stretch) and stretch.base.look(stretch.turns) is None:
            waits.append((self._ask_base(stretch, completed, query), self._settings.first_turn_base_wait))
        if completed == 0 and not self._switched and self._settings.has_model:
            # After a switch the answer that was asked for last is lost already, and paid for.
            waits.append((self._ask_dialectic(stretch, completed, query), self._settings.first_turn_dialectic_wait))
        for job, seconds in waits if completed == 0 else ():
            concurrent.futures.wait([job], max(0.0, start + seconds - self._clock.monotonic()))

    def _at_hand(self, stretch: _Stretch) -> str:
        base = stretch.base.look(stretch.turns) if self._wants_base(stretch) else None
        return self._composed(stretch, base or [], stretch.dialectic.take(stretch.turns))

    def _now(self, stretch: _Stretch, query: str) -> str:
        """What comes of asking for this very query in time; what is late or fails is left out."""
        deadline = Deadline.after(min(self._settings.timeout, _LONGEST_SYNC), self._clock)
        completed = stretch.turns - 1
        answer = self._ask_dialectic(stretch, completed, query, deadline) if self._settings.has_model else None
        base = self._ask_base(stretch, completed, query, deadline) if self._wants_base(stretch) else None
        asked: list[Future[Any]] = [job for job in (answer, base) if job is not None]
        concurrent.futures.wait(asked, deadline.remaining())
        return self._composed(stretch, _outcome(base) or [], _outcome(answer))

    def _wants_base(self, stretch: _Stretch) -> bool:
        return self._settings.injection_frequency == "every-turn" or not stretch.base_shown

    def _ask_base(
        self, stretch: _Stretch, turn: int, query: str, deadline: Deadline | None = None
    ) -> Future[list[Section] | None]:
        ref = stretch.ref
        observer = ref.ai_peer if self._observes_others else ref.user_peer

        def fetch() -> list[Section]:
            until = deadline or Deadline.after(self._settings.timeout, self._clock)
            api = self._connect(until)
            with api.within(until):
                return fetch_base_context(api, self._decided(ref), query, observer=observer, shared=self._shared)

        return stretch.base.ask(turn, fetch, anew=deadline is not None)

    def _ask_dialectic(
        self, stretch: _Stretch, turn: int, query: str, deadline: Deadline | None = None
    ) -> Future[str | None]:
        def fetch() -> str | None:
            question = None
            if self._rewrite is not None:
                self._ledger.count(stretch.ref.session, llm_calls=1)
                patience = self._settings.timeout if deadline is None else deadline.remaining()
                question = rewritten(self._rewrite, query, patience)
            answer = ask(
                lambda question, level: self._chat(stretch.ref, question, level, deadline),
                self._settings,
                query,
                warm=(stretch.before or 0) + turn > 0,
                current=deadline is not None,
                question=question,
            )
            return presentable(without_thinking(answer)) or None

        return stretch.dialectic.ask(turn, fetch, anew=deadline is not None)

    def _chat(self, ref: SessionRef, question: str, level: str, deadline: Deadline | None) -> str:
        until = deadline or Deadline.after(self._settings.timeout, self._clock)
        api = self._connect(until)
        observer, target = (ref.ai_peer, ref.user_peer) if self._observes_others else (ref.user_peer, None)
        with self._ledger.llm_call(ref.session), api.within(until):
            return api.chat(question, observer=observer, target=target, level=level)

    def _composed(self, stretch: _Stretch, base: list[Section], answer: str | None) -> str:
        stretch.base_shown = stretch.base_shown or any(section.text for section in base)
        said, limit = answer or "", self._settings.dialectic_max_chars
        if limit:
            said = cut_at_word(said, limit)
        tokens = self._settings.context_tokens
        sections = [*base, Section("What matters now", said, rank=DIALECTIC_RANK)]
        return compose(sections, tokens * CHARS_PER_TOKEN if tokens is not None else None)

    def _save(self, stretch: _Stretch) -> None:
        if stretch.before is None:
            self._ledger.flush()
        else:
            self._ledger.flush(stretch.ref.session, stretch.dialectic.cadence, before=stretch.before)


def _outcome(asked: Future[T | None] | None) -> T | None:
    """What came of it by now."""
    if asked is None or not asked.done() or asked.cancelled() or asked.exception() is not None:
        return None
    return asked.result()
