"""An outbox as one provider has it, in this process or in one of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.clock import Clock, SystemClock
from honcho_exec.model import Conclusion, Message, SessionRef, Write
from honcho_exec.outbox.lease import LeaseHolder
from honcho_exec.outbox.outbox import Outbox

__all__ = ["CLOCK", "REF", "Process", "another"]

REF = SessionRef("w", "s", "ada", "hermes")
CLOCK = SystemClock()


class Process:
    """An outbox as one provider has it."""

    def __init__(self, folder: Path, *, max_rows: int = 10_000, clock: Clock = CLOCK) -> None:
        self.holder = LeaseHolder(folder / "holders")
        self.outbox = Outbox(
            folder / "outbox.db", destination="here", holder=self.holder, clock=clock, max_rows=max_rows
        )

    def admit(self, *texts: str, key: str | None = None) -> str:
        turn = CLOCK.new_id()
        return self.give(turn, [Message("ada", text, source_key=key) for text in texts])

    def give(self, turn: str, writes: list[Write]) -> str:
        return self.outbox.admit(turn, REF, writes).turn

    def deliver(self) -> list[str]:
        """Deliver everything, and return it."""
        texts = []
        self.outbox.adopt()
        while (batch := self.outbox.claim()) is not None:
            rows = self.outbox.mark_sent(batch.rows, may_land_for=0.0)
            texts += [row.write.content for row in rows if isinstance(row.write, Message | Conclusion)]
            self.outbox.delete_delivered(rows)
        return texts

    def close(self) -> None:
        self.outbox.close()
        self.holder.close()


def _serve(home: Path, orders: multiprocessing.Queue[str], answers: multiprocessing.Queue[object]) -> None:
    process = Process(home)
    while (order := orders.get()) != "end":
        answers.put(process.deliver() if order == "deliver" else process.admit(order))
    process.close()


@contextmanager
def another(home: Path) -> Iterator[Callable[[str], object]]:
    """A process of its own, which admits what it is told to, or delivers."""
    context = multiprocessing.get_context("spawn")
    orders, answers = context.Queue(), context.Queue()
    process = context.Process(target=_serve, args=(home, orders, answers), daemon=True)
    process.start()

    def ask(order: str) -> object:
        orders.put(order)
        return answers.get(timeout=30)

    try:
        yield ask
    finally:
        orders.put("end")
        process.join(30)
        process.kill()
        process.join()
        process.close()
        for queue in (orders, answers):
            queue.close()
            queue.join_thread()
