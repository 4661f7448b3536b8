"""Find the row that Honcho refuses or fails at, by halves, and park it.

A server that refuses or fails everything must not have every row parked. A row is therefore blamed only while something
else passes.
"""

from __future__ import annotations

from collections import Counter

from honcho_exec.delivery.attempt import SERVER_FAILED, Attempts, Outcome
from honcho_exec.errors import Ambiguous, Rejected, RequestError, StateError
from honcho_exec.model import Deletion
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Batch

__all__ = ["PoisonSearch", "blames_rows"]

# After how many rounds of retries a batch is suspected to be what the server fails at.
_FAILURES_OF_SUSPECT = 2
# What a server says of what is in a request; any other refusal (402, 407, a redirect to a login page, …) is about the
# caller, or from an intermediary, and says nothing of the rows.
_BLAMES_ROWS = {400, 404, 413, 415, 422, 501, None}
# How many single rows are parked on the server's word alone, while nothing else is seen to pass.
_MAX_BELIEVED = 3
# How many batches behind a suspect are tried in one round, and how many are suspects at a time: each stands alone in
# its request, so that a server that fails everything for hours must not make one of every row.
_MAX_PROBES = 8
_MAX_SUSPECTS = 16


def blames_rows(error: Rejected) -> bool:
    """Return whether a refusal can be about what is in the request."""
    return error.status in _BLAMES_ROWS


class PoisonSearch:
    """Isolates poison rows; on the lane only."""

    def __init__(self, attempts: Attempts, outbox: Outbox, outcome: Outcome) -> None:
        self._attempts = attempts
        self._outbox = outbox
        self._outcome = outcome
        # Rounds of retries that failed, by streams and by ids of batches.
        self._failures: Counter[str] = Counter()

    def reset(self) -> None:
        """Drop all suspicions: everything has been delivered."""
        self._failures.clear()

    def on_refusal(self, batch: Batch, error: Rejected) -> bool:
        """Halve or park a batch that Honcho refused; return False if the server may refuse everything."""
        if not self._is_blamed(batch):
            return False
        self._isolate(self._outbox.refresh(batch), error)
        return True

    def on_failure(self, batch: Batch, error: Ambiguous) -> bool:
        """Halve or park a batch that the server fails at, again and again, while something else passes.

        Returns False if that is not known (yet), or if the server fails at everything.
        """
        self._failures[batch.stream] += 1
        if self._failures[batch.stream] < _FAILURES_OF_SUSPECT:
            return False
        try:
            if self._attempts.was_done(batch):
                return True
        except RequestError:
            return False
        if len(batch.rows) == 1:
            # Its Future fails before those of the rows behind it.
            self._outcome.on_refused(batch.rows, error)
            if not self._something_passes(batch):
                return False
            batch = self._outbox.refresh(batch)
        self._isolate(batch, error)
        return True

    def _is_blamed(self, batch: Batch) -> bool:
        if len(batch.rows) > 1:
            return True
        try:
            self._attempts.api.ping()
        except RequestError:
            return False
        self._attempts.refusals += 1
        return self._attempts.refusals <= _MAX_BELIEVED or self._something_passes(batch)

    def _isolate(self, batch: Batch, error: RequestError) -> None:
        if not batch.rows or batch.rows[0].parked_at is not None:
            return
        if len(batch.rows) > 1:
            self._outbox.bisect(batch)
            return
        if isinstance(batch.rows[0].write, Deletion):
            # There is nothing to keep of a deletion that Honcho refuses: the conclusion does not exist.
            self._outbox.delete_delivered(batch.rows)
            self._outcome.on_refused(batch.rows, error)
        else:
            self._attempts.park(batch, error)

    def _something_passes(self, suspect: Batch) -> bool:
        """Return whether Honcho takes anything but the suspect: heads of other streams, then rows behind it.

        What is refused or fails on the way is halved, so that the next round finds more.
        """
        suspects, skipped, probes = [suspect], set[str](), 0
        while probes < _MAX_PROBES and len(suspects) < _MAX_SUSPECTS:
            behind = self._outbox.claim(after=suspects, skip_streams=skipped)
            if behind is None:
                if suspect.stream not in skipped:
                    # The holder of the row behind all of these can try it, and may not before these are gone.
                    self._outbox.hand_over(suspect)
                return False
            if self._failures[behind.id] >= _FAILURES_OF_SUSPECT:
                suspects.append(behind)
                continue
            probes += 1
            try:
                if self._passes(behind):
                    return True
            except (RequestError, StateError):
                return False
            if self._failures[behind.id]:
                skipped.add(behind.stream)
        return False

    def _passes(self, batch: Batch) -> bool:
        """Try once; return False if Honcho refused the batch or failed at it, which is counted and isolated."""
        try:
            self._attempts.open(batch)
            self._attempts.attempt(batch, probe=True)
        except Rejected as error:
            if self._attempts.was_done_after_all(batch, error, probe=True):
                return True
            if error.cause != "refused" or not blames_rows(error):
                raise
            self._attempts.refusals += 1
            self._isolate_or_suspect(batch, error, certain=self._attempts.refusals <= _MAX_BELIEVED)
            return False
        except Ambiguous as error:
            if error.status != SERVER_FAILED:
                raise
            if self._attempts.was_done(batch, probe=True):
                return True
            self._isolate_or_suspect(batch, error, certain=False)
            return False
        return True

    def _isolate_or_suspect(self, batch: Batch, error: RequestError, *, certain: bool) -> None:
        if certain or len(batch.rows) > 1:
            self._isolate(batch, error)
        else:
            # It is parked when something behind it passes, and its Future fails before those of what is behind it.
            self._failures[batch.id] += 1
            self._outcome.on_refused(batch.rows, error)
