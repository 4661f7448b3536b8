from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["ManualExecutor", "at_once"]


def at_once(job: Callable[[], None]) -> None:
    """Run a job on the caller's thread."""
    job()


class ManualExecutor(Executor):
    """Runs one job when it is told to, on the caller's thread."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self) -> Exception | None:
        """Run the oldest job and return what it raised; what ends a process, or a test, is raised here."""
        future, job = self.jobs.popleft()
        try:
            result = job()
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
            return error
        future.set_result(result)
        return None
