"""Deliver one batch: retry attempts at it, and decide what a failure says about its rows."""

from __future__ import annotations

from functools import partial

from honcho_exec.client.connection import Connection
from honcho_exec.clock import Clock
from honcho_exec.delivery.attempt import SERVER_FAILED, Attempts, Outcome
from honcho_exec.delivery.poison import PoisonSearch, blames_rows
from honcho_exec.errors import Ambiguous, Inconclusive, Rejected
from honcho_exec.net.breaker import Breaker
from honcho_exec.net.retry import RetryPolicy
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.outbox.rows import Batch
from honcho_exec.runtime.metrics import Meter

__all__ = ["Sender"]


class Sender:
    """Delivers batches; on the lane only."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        connection: Connection,
        retry: RetryPolicy,
        breaker: Breaker,
        outcome: Outcome,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._retry = retry
        self._breaker = breaker
        self._attempts = Attempts(outbox=outbox, connection=connection, outcome=outcome, meter=meter, clock=clock)
        self._poison = PoisonSearch(self._attempts, outbox, outcome)

    def reset(self) -> None:
        """Drop all suspicions: everything has been delivered."""
        self._attempts.reset()
        self._poison.reset()

    def deliver(self, batch: Batch) -> None:
        """Send a batch unless Honcho has it; isolate and park the row that Honcho refuses.

        Raises:
            RequestError, StateError, ConfigurationError: it was not delivered, and not for what is in it: the
                server is away, the key is wrong, the disk fails.
        """
        self._breaker.allow_probe()
        # A session that cannot be created says nothing about the rows.
        self._attempts.open(batch)
        try:
            self._retry.call(partial(self._attempts.attempt, batch))
        except Rejected as error:
            if self._attempts.was_done_after_all(batch, error):
                return
            if error.cause == "auth" or not blames_rows(error):
                raise
            # The session may have been deleted: it is created again before the rows are blamed.
            reopened = error.cause == "not_found" and self._attempts.reopen(batch)
            if not reopened and not self._poison.on_refusal(batch, error):
                raise
        except Ambiguous as error:
            if error.status != SERVER_FAILED or not self._poison.on_failure(batch, error):
                raise
        except Inconclusive as error:
            self._attempts.park_undecided(batch, error)
