"""Import messages through the provider, a bounded number at a time, and count the results."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from honcho_exec.errors import HonchoExecError, Overloaded, Rejected, RequestError
from honcho_exec.model import Receipt
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.text.cleaning import clean
from honcho_exec.transfer.sources import MessageLine, parse_time

__all__ = ["ImportResult", "ImportedMessage", "Importer", "Progress"]

Progress = Callable[[int, str], None]
"""Reports how many more messages are done, and what delays the next ones (empty if nothing does)."""

_MAX_PENDING = 1000


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message and the session that it is imported into."""

    session: str
    line: MessageLine


@dataclass(slots=True)
class ImportResult:
    """How many messages were delivered, and why the others were not.

    Attributes:
        written: delivered to Honcho.
        duplicates: in Honcho already.
        empty: without text, not stored.
        kept: still in the outbox, delivered later.
        refused: refused by Honcho and parked.
        reason: the last error.
        cause: the class of that error.
    """

    written: int = 0
    duplicates: int = 0
    empty: int = 0
    kept: int = 0
    refused: int = 0
    reason: str = ""
    cause: str = "timeout"


class Importer:
    """Passes messages to a provider in order.

    Args:
        provider: stores and delivers the messages.
        patience: after so many seconds without a delivery, messages are stored and no longer waited for.
        report: called for every message that is done, and for every error.
    """

    def __init__(self, provider: HonchoProvider, patience: float, report: Progress) -> None:
        self._provider = provider
        self._patience = patience
        self._report = report
        self._pending: deque[Future[Receipt]] = deque()
        self._occurrences: Counter[bytes] = Counter()
        self._result = ImportResult()
        self._has_given_up = False
        self._last_delivery = time.monotonic()

    def add(self, message: ImportedMessage) -> None:
        """Store one message durably; wait first while too many are pending.

        Raises:
            HonchoExecError: it could not be stored.
        """
        while len(self._pending) >= _MAX_PENDING and not self._has_given_up:
            self._await_oldest()
        key = self._key(message)
        future = self._send(message, key)
        while _is_full(future) and self._pending and not self._has_given_up:
            self._await_oldest()
            future = self._send(message, key)
        if _is_full(future):
            raise Overloaded(str(future.exception()))
        self._pending.append(future)
        if self._has_given_up:
            self._count_rest()

    def finish(self) -> ImportResult:
        """Wait for the pending messages, and return the counts of all."""
        while self._pending and not self._has_given_up:
            self._await_oldest()
        self._count_rest()
        return self._result

    def stop(self) -> ImportResult:
        """Return the counts at once, without waiting for pending messages."""
        self._has_given_up = True
        self._count_rest()
        return self._result

    def _await_oldest(self) -> None:
        """Wait for the oldest pending message and count it, or give up."""
        future = self._pending[0]
        try:
            future.result(max(0.0, self._deadline() - time.monotonic()))
        except TimeoutError:
            # Later messages may have been delivered meanwhile.
            self._has_given_up = self._deadline() <= time.monotonic()
            return
        except RequestError as error:
            if not _is_refused(error):
                self._has_given_up = True
                return
        self._pending.popleft()
        self._count(future)

    def _deadline(self) -> float:
        return self._last_delivery + self._patience

    def _send(self, message: ImportedMessage, key: str) -> Future[Receipt]:
        """Store a message; the Future stays pending over retryable failures."""
        outcome: Future[Receipt] = Future()
        self._attempt(message, key, outcome)
        return outcome

    def _attempt(self, message: ImportedMessage, key: str, outcome: Future[Receipt], *, pending: bool = False) -> None:
        def on_done(future: Future[Receipt]) -> None:
            error = future.exception()
            if error is None:
                self._last_delivery = time.monotonic()
                receipt = future.result()
                if pending:
                    # Not in Honcho at the first attempt: the outbox delivered it in between.
                    receipt = replace(receipt, written=receipt.written + receipt.duplicates, duplicates=0)
                outcome.set_result(receipt)
            elif self._is_retried(error):
                try:
                    self._attempt(message, key, outcome, pending=True)
                except HonchoExecError as closed:
                    outcome.set_exception(closed)
            else:
                outcome.set_exception(error)

        self._store(message, key).add_done_callback(on_done)

    def _is_retried(self, error: BaseException) -> bool:
        """Return whether the outbox retries soon enough to wait for it."""
        if not isinstance(error, RequestError) or _is_refused(error):
            return False
        self._result.reason, self._result.cause = str(error), error.cause
        self._report(0, str(error))
        # A wrong key stays wrong until a person changes it.
        return error.cause != "auth" and not self._has_given_up

    def _count_rest(self) -> None:
        """Count the remaining messages without waiting."""
        while self._pending:
            future = self._pending.popleft()
            if future.done():
                self._count(future)
            else:
                self._result.kept += 1

    def _count(self, future: Future[Receipt]) -> None:
        try:
            receipt = future.result()
        except RequestError as error:
            self._result.reason, self._result.cause = str(error), error.cause
            if _is_refused(error):
                self._result.refused += 1
            else:
                self._result.kept += 1
            return
        if receipt.written:
            self._result.written += 1
        elif receipt.duplicates:
            self._result.duplicates += 1
        else:
            self._result.empty += 1
        self._report(1, "")

    def _store(self, message: ImportedMessage, key: str) -> Future[Receipt]:
        line = message.line
        source_id = clean(line.id) if isinstance(line.id, str) else line.id
        return self._provider.remember(
            message.session,
            line.role,
            line.content,
            name=line.name,
            created_at=parse_time(line.created_at) if line.created_at is not None else None,
            source_key=key,
            metadata=None if source_id is None else {"source_id": source_id},
        )

    def _key(self, message: ImportedMessage) -> str:
        """Return a key that is stable across runs: a hash of the message and its occurrence number."""
        line = message.line
        fields = [message.session, line.role, line.name, line.created_at, line.content, line.id]
        digest = hashlib.sha256(json.dumps(fields).encode()).digest()[:16]
        self._occurrences[digest] += 1
        return f"ingest-{digest.hex()}-{self._occurrences[digest]}"


def _is_full(future: Future[Receipt]) -> bool:
    return future.done() and isinstance(future.exception(), Overloaded)


def _is_refused(error: HonchoExecError) -> bool:
    return isinstance(error, Rejected) and error.cause != "auth"
