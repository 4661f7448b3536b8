"""Fetch in the background what is put before a turn, on threads of its own."""

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
from honcho_exec.recall.layer import PrefetchSlot
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

# The conversations of a gateway share these threads; a slow dialectic answer delays no base context.
_base_pool = PerProcess(partial(SharedPool, "honcho-recall", 16))
_dialectic_pool = PerProcess(partial(SharedPool, "honcho-dialectic", 16))

# The longest wait of a turn with `recallSync`.
_MAX_SYNC_SECONDS = 5.0


class _Segment:
    """The turns between two switches of the session; its results are not shown in another segment.

    Attributes:
        turns: how many turns have begun.
        ended: how many have ended; a turn that was interrupted never does.
        announced: whether the last turn was announced and not recalled for yet.
        before: how many turns the session had before this segment; None until that is known.
        base_shown: whether the base context was put before a turn.
    """

    def __init__(self, ref: SessionRef) -> None:
        self.ref = ref
        self.turns = 0
        self.ended = 0
        self.announced = False
        self.before: int | None = None
        self.base_shown = False
        self.base: PrefetchSlot[list[Section]]
        self.dialectic: PrefetchSlot[str]

    def close(self) -> None:
        self.base.close()
        self.dialectic.close()


class Recall:
    """Recalls the base context and the dialectic of a conversation, each in its own cadence.

    A turn waits for them only if it is the first, or with `recallSync`, and as long as the settings say. Without a
    language model there is no dialectic: the embedded Honcho would quote what the base context quotes.

    Args:
        connect: returns the API when the session is open, waiting until the deadline; called on the recall threads.
        decided: returns the session to read; see `Conversation.decided`.
        settings: what is recalled, how often, and how much of it.
        usage: counts the costs, and keeps the cadence over a restart.
        clock: the source of times.
        rewrite: the host's query rewriter, if it has one.
        shared: whether other people talk to the same assistant.
        abandon: a method that cuts the requests when the interpreter exits.
    """

    def __init__(
        self,
        connect: Callable[[Deadline], HonchoApi],
        settings: Settings,
        usage: RecallUsage,
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
        self._usage = usage
        self._clock = clock
        self._shared = shared
        self._rewrite = rewrite if settings.query_rewrite else None
        self._observes_others = settings.observes(ai=True)[1]
        self._lock = threading.Lock()
        self._base_strand = Strand(_base_pool(), abandon=abandon)
        self._dialectic_strand = Strand(_dialectic_pool(), abandon=abandon)
        self._segment: _Segment | None = None
        self._switched = False
        self._announces = False

    def announce(self, ref: SessionRef) -> None:
        """Count a turn that begins, with or without a following `prefetch`."""
        with self._lock:
            self._announces = True
            self._begin_turn(ref).announced = True

    def prefetch(self, ref: SessionRef, query: str) -> str:
        """Return what to put before the turn that answers `query`."""
        query = storable(query, mask=self._settings.redact)
        with self._lock:
            segment = self._current(ref)
            # A host that announces its turns may ask several times in one.
            if not segment.announced and not (self._announces and segment.ended < segment.turns):
                self._begin_turn(ref)
            segment.announced = False
        if self._settings.recall_sync:
            text = "" if is_trivial(query) else self._current_query(segment, query)
        else:
            if not is_trivial(query):
                self._warm_up(segment, query)
            text = self._at_hand(segment)
        self._usage.count(ref.session, characters=len(text))
        return text

    def queue_prefetch(self, ref: SessionRef, query: str) -> None:
        """Begin to fetch what is put before the next turn, as far as it is due."""
        query = storable(query, mask=self._settings.redact)
        with self._lock:
            segment = self._current(ref)
            segment.announced = False
            segment.ended += 1
            if segment.ended > segment.turns:
                self._begin_turn(ref)
        if self._settings.recall_sync or is_trivial(query):
            self._base_strand.post(lambda: self._save(segment))
            return
        if self._wants_base(segment):
            self._fetch_base(segment, segment.turns, query)
        if self._settings.has_model:
            self._fetch_dialectic(segment, segment.turns, query)

    def note_question(self, ref: SessionRef) -> None:
        """Record that the model asked Honcho in this turn, which replaces a dialectic question."""
        with self._lock:
            segment = self._segment
        if segment is not None and segment.ref == ref:
            segment.dialectic.cadence.note_answer(segment.turns)

    def switch(self) -> None:
        """Drop all results: the conversation goes on in another session, or its last turns were taken back."""
        with self._lock:
            if self._segment is not None:
                self._leave(self._segment)

    def close(self) -> None:
        """Fetch nothing more; a request in progress is cut when the backend is closed."""
        with self._lock:
            segment = self._segment
        if segment is not None:
            segment.close()
        self._base_strand.close()
        self._dialectic_strand.close()
        if segment is not None:
            self._save(segment)

    def _current(self, ref: SessionRef) -> _Segment:
        if self._segment is not None and self._segment.ref != ref:
            self._leave(self._segment)
        if self._segment is None:
            self._segment = self._new_segment(ref)
        return self._segment

    def _leave(self, segment: _Segment) -> None:
        segment.close()
        self._base_strand.post(lambda: self._save(segment))
        self._segment, self._switched = None, True

    def _new_segment(self, ref: SessionRef) -> _Segment:
        segment = _Segment(ref)

        def save() -> None:
            self._save(segment)

        def restore() -> None:
            if segment.before is None:
                segment.before = self._usage.restore(ref.session, segment.dialectic.cadence)

        segment.base = PrefetchSlot(
            "base context", self._base_strand, Cadence(self._settings.context_cadence), after=save
        )
        segment.dialectic = PrefetchSlot(
            "dialectic",
            self._dialectic_strand,
            Cadence(self._settings.dialectic_cadence),
            expensive=True,
            before=restore,
            after=save,
        )
        return segment

    def _begin_turn(self, ref: SessionRef) -> _Segment:
        segment = self._current(ref)
        segment.turns += 1
        self._usage.count(ref.session, turns=1)
        return segment

    def _warm_up(self, segment: _Segment, query: str) -> None:
        """Fetch what is missing; the first turn waits for it."""
        completed = segment.turns - 1
        start = self._clock.monotonic()
        waits: list[tuple[Future[Any], float]] = []
        if self._wants_base(segment) and segment.base.peek(segment.turns) is None:
            waits.append((self._fetch_base(segment, completed, query), self._settings.first_turn_base_wait))
        if completed == 0 and not self._switched and self._settings.has_model:
            # After a switch not: the last answer was paid for and dropped.
            waits.append((self._fetch_dialectic(segment, completed, query), self._settings.first_turn_dialectic_wait))
        for future, seconds in waits if completed == 0 else ():
            concurrent.futures.wait([future], max(0.0, start + seconds - self._clock.monotonic()))

    def _at_hand(self, segment: _Segment) -> str:
        base = segment.base.peek(segment.turns) if self._wants_base(segment) else None
        return self._composed(segment, base or [], segment.dialectic.pop(segment.turns))

    def _current_query(self, segment: _Segment, query: str) -> str:
        """Return what can be fetched for this query in time."""
        deadline = Deadline.after(min(self._settings.timeout, _MAX_SYNC_SECONDS), self._clock)
        completed = segment.turns - 1
        answer = self._fetch_dialectic(segment, completed, query, deadline) if self._settings.has_model else None
        base = self._fetch_base(segment, completed, query, deadline) if self._wants_base(segment) else None
        futures: list[Future[Any]] = [future for future in (answer, base) if future is not None]
        concurrent.futures.wait(futures, deadline.remaining())
        return self._composed(segment, _outcome(base) or [], _outcome(answer))

    def _wants_base(self, segment: _Segment) -> bool:
        return self._settings.injection_frequency == "every-turn" or not segment.base_shown

    def _fetch_base(
        self, segment: _Segment, turn: int, query: str, deadline: Deadline | None = None
    ) -> Future[list[Section] | None]:
        ref = segment.ref
        observer = ref.ai_peer if self._observes_others else ref.user_peer

        def request() -> list[Section]:
            until = deadline or Deadline.after(self._settings.timeout, self._clock)
            api = self._connect(until)
            with api.within(until):
                return fetch_base_context(api, self._decided(ref), query, observer=observer, shared=self._shared)

        return segment.base.fetch(turn, request, again=deadline is not None)

    def _fetch_dialectic(
        self, segment: _Segment, turn: int, query: str, deadline: Deadline | None = None
    ) -> Future[str | None]:
        def request() -> str | None:
            question = None
            if self._rewrite is not None:
                self._usage.count(segment.ref.session, llm_calls=1)
                patience = self._settings.timeout if deadline is None else deadline.remaining()
                question = rewritten(self._rewrite, query, patience)
            answer = ask(
                lambda question, level: self._chat(segment.ref, question, level, deadline),
                self._settings,
                query,
                warm=(segment.before or 0) + turn > 0,
                current=deadline is not None,
                question=question,
            )
            return presentable(without_thinking(answer)) or None

        return segment.dialectic.fetch(turn, request, again=deadline is not None)

    def _chat(self, ref: SessionRef, question: str, level: str, deadline: Deadline | None) -> str:
        until = deadline or Deadline.after(self._settings.timeout, self._clock)
        api = self._connect(until)
        observer, target = (ref.ai_peer, ref.user_peer) if self._observes_others else (ref.user_peer, None)
        with self._usage.llm_call(ref.session), api.within(until):
            return api.reads.chat(question, observer=observer, target=target, level=level)

    def _composed(self, segment: _Segment, base: list[Section], answer: str | None) -> str:
        segment.base_shown = segment.base_shown or any(section.text for section in base)
        answer, limit = answer or "", self._settings.dialectic_max_chars
        if limit:
            answer = cut_at_word(answer, limit)
        tokens = self._settings.context_tokens
        sections = [*base, Section("What matters now", answer, rank=DIALECTIC_RANK)]
        return compose(sections, tokens * CHARS_PER_TOKEN if tokens is not None else None)

    def _save(self, segment: _Segment) -> None:
        if segment.before is None:
            self._usage.flush()
        else:
            self._usage.flush(segment.ref.session, segment.dialectic.cadence, before=segment.before)


def _outcome(future: Future[T | None] | None) -> T | None:
    """Return the result, if there is one by now."""
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()
