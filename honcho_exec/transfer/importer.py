"""Messages into the provider, a bounded number at a time, and what became of them."""

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
from honcho_exec.transfer.sources import Line, moment

__all__ = ["ImportResult", "ImportedMessage", "Importer", "Progress"]

Progress = Callable[[int, str], None]
"""How many more are done, and what is in the way (empty when nothing is)."""

_IN_FLIGHT = 1000


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message and the session that it is brought into."""

    session: str
    line: Line


@dataclass(slots=True)
class ImportResult:
    """What became of the messages that were given.

    Attributes:
        written: how many went in.
        already: how many were there before.
        empty: how many hold no text.
        kept: how many are in the outbox and go in later.
        refused: how many Honcho refused for good.
        reason: what was last in the way.
        cause: its class.
    """

    written: int = 0
    already: int = 0
    empty: int = 0
    kept: int = 0
    refused: int = 0
    reason: str = ""
    cause: str = "timeout"


class Importer:
    """Gives messages to a provider in their order.

    Args:
        provider: takes the messages.
        patience: seconds without any going in, after which they are only stored and no longer waited for.
        told: hears of every message that is done, and of what is in the way.
    """

    def __init__(self, provider: HonchoProvider, patience: float, told: Progress) -> None:
        self._provider = provider
        self._patience = patience
        self._told = told
        self._waiting: deque[Future[Receipt]] = deque()
        self._seen: Counter[bytes] = Counter()
        self._outcome = ImportResult()
        self._gave_up = False
        self._moved = time.monotonic()

    def give(self, said: ImportedMessage) -> None:
        """Store one message durably; waits while too many are on their way.

        Raises:
            HonchoExecError: it could not be stored.
        """
        while len(self._waiting) >= _IN_FLIGHT and not self._gave_up:
            self._take()
        key = self._key(said)
        future = self._send(said, key)
        while _is_full(future) and self._waiting and not self._gave_up:
            self._take()
            future = self._send(said, key)
        if _is_full(future):
            raise Overloaded(str(future.exception()))
        self._waiting.append(future)
        if self._gave_up:
            self._leave()

    def finish(self) -> ImportResult:
        """Wait for what is on its way, and say what became of everything."""
        while self._waiting and not self._gave_up:
            self._take()
        self._leave()
        return self._outcome

    def stop(self) -> ImportResult:
        """Wait for nothing more, and say what became of everything that was given."""
        self._gave_up = True
        self._leave()
        return self._outcome

    def _take(self) -> None:
        """Wait for the oldest message and count it, or give up."""
        future = self._waiting[0]
        try:
            future.result(max(0.0, self._patient_until() - time.monotonic()))
        except TimeoutError:
            # Others may have gone in meanwhile.
            self._gave_up = self._patient_until() <= time.monotonic()
            return
        except RequestError as error:
            if not _is_refused(error):
                self._gave_up = True
                return
        self._waiting.popleft()
        self._count(future)

    def _patient_until(self) -> float:
        return self._moved + self._patience

    def _send(self, said: ImportedMessage, key: str) -> Future[Receipt]:
        """Store a message; the Future lasts over failures that pass."""
        lasting: Future[Receipt] = Future()
        self._attempt(said, key, lasting)
        return lasting

    def _attempt(self, said: ImportedMessage, key: str, lasting: Future[Receipt], *, pending: bool = False) -> None:
        def settled(future: Future[Receipt]) -> None:
            error = future.exception()
            if error is None:
                self._moved = time.monotonic()
                receipt = future.result()
                if pending:
                    # It was not in Honcho at the first attempt; the outbox may have delivered it before this one.
                    receipt = replace(receipt, written=receipt.written + receipt.already, already=0)
                lasting.set_result(receipt)
            elif self._passes(error):
                try:
                    self._attempt(said, key, lasting, pending=True)
                except HonchoExecError as closed:
                    lasting.set_exception(closed)
            else:
                lasting.set_exception(error)

        self._remember(said, key).add_done_callback(settled)

    def _passes(self, error: BaseException) -> bool:
        """Whether the outbox tries again, and soon enough to be waited for."""
        if not isinstance(error, RequestError) or _is_refused(error):
            return False
        self._outcome.reason, self._outcome.cause = str(error), error.cause
        self._told(0, str(error))
        # A wrong key stays wrong until a person changes it.
        return error.cause != "auth" and not self._gave_up

    def _leave(self) -> None:
        """Count what is left without waiting for it."""
        while self._waiting:
            future = self._waiting.popleft()
            if future.done():
                self._count(future)
            else:
                self._outcome.kept += 1

    def _count(self, future: Future[Receipt]) -> None:
        try:
            receipt = future.result()
        except RequestError as error:
            self._outcome.reason, self._outcome.cause = str(error), error.cause
            if _is_refused(error):
                self._outcome.refused += 1
            else:
                self._outcome.kept += 1
            return
        if receipt.written:
            self._outcome.written += 1
        elif receipt.already:
            self._outcome.already += 1
        else:
            self._outcome.empty += 1
        self._told(1, "")

    def _remember(self, said: ImportedMessage, key: str) -> Future[Receipt]:
        line = said.line
        source_id = clean(line.id) if isinstance(line.id, str) else line.id
        return self._provider.remember(
            said.session,
            line.role,
            line.content,
            name=line.name,
            created_at=moment(line.created_at) if line.created_at is not None else None,
            source_key=key,
            metadata=None if source_id is None else {"source_id": source_id},
        )

    def _key(self, said: ImportedMessage) -> str:
        """A name for the message that is the same in every run: what it says, and the how-manieth of these it is."""
        line = said.line
        fields = [said.session, line.role, line.name, line.created_at, line.content, line.id]
        digest = hashlib.sha256(json.dumps(fields).encode()).digest()[:16]
        self._seen[digest] += 1
        return f"ingest-{digest.hex()}-{self._seen[digest]}"


def _is_full(future: Future[Receipt]) -> bool:
    return future.done() and isinstance(future.exception(), Overloaded)


def _is_refused(error: HonchoExecError) -> bool:
    return isinstance(error, Rejected) and error.cause != "auth"
