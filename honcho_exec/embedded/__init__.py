"""A local Honcho: the API of a Honcho server over one SQLite file; it needs no language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from honcho_exec.clock import Clock, SystemClock
from honcho_exec.embedded.api.app import build_app
from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.store.purge import count_chosen, forget_chosen, named_so
from honcho_exec.embedded.store.records import Record, dump_records, load_records
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["EmbeddedHoncho"]


class EmbeddedHoncho:
    """Serves Honcho's API (3.0.12) from a file, in-process or behind any WSGI server.

    What a language model would do is done by quoting what is stored, and says so; questions are answered by one
    where one is given. What cannot be done is answered with 501.

    Args:
        path: the database file; made (mode 0600) when it is not there.
        clock: where times and ids come from.
        model: answers questions; it is closed with the file.

    Attributes:
        app: a WSGI application that many threads may call at once, for `httpx.WSGITransport(app=...)`.

    Raises:
        StateError: the file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, model: LanguageModel | None = None) -> None:
        self._path = path
        self._model = model
        self._store = Store(path, clock or SystemClock())
        self.app: Callable[..., Any] = build_app(self._store, model)

    def abort(self) -> None:
        """Cut the language model's answers that are under way; questions are answered by quoting from now on."""
        if self._model is not None:
            self._model.abort()

    def export(self) -> Iterator[Record]:
        """Everything that is stored, as records that `load` takes; see `portable`."""
        with self._store.reading() as connection:
            yield from dump_records(connection)

    def load(self, records: Iterable[tuple[str, object]]) -> Counter[str]:
        """Store exported records, all or none, each with the place it was read at; what is there already stays.

        Returns:
            How many of each kind were new, and as `already` how many were not.

        Raises:
            InputError: one of them cannot be stored; nothing was.
        """
        with self._store.writing() as writer:
            return load_records(writer, records)

    def count(self, chosen: PurgeFilter) -> Counter[str]:
        """How much would be forgotten, by its kind."""
        with self._store.reading() as connection:
            return count_chosen(connection, chosen)

    def named(self, chosen: PurgeFilter) -> list[tuple[str, str]]:
        """The kinds and ids of the sessions and peers whose id holds the chosen text."""
        with self._store.reading() as connection:
            return named_so(connection, chosen)

    def flush(self) -> None:
        """Empty the log beside the file, where nobody else reads it."""
        self._store.flush()

    def shrink(self) -> bool:
        """Give the space of what was deleted back to the disk; return False if another process is in the way."""
        return self._store.shrink()

    def forget(self, chosen: PurgeFilter) -> Counter[str]:
        """Take out what is chosen, also out of what is left of it in the file, and say how much it was."""
        with self._store.writing() as writer:
            counts = forget_chosen(writer, chosen)
        self._store.flush()
        return counts

    def close(self) -> None:
        """Close the file; what is asked after that is answered with 503."""
        if self._model is not None:
            self._model.close()
        self._store.close()

    def __repr__(self) -> str:
        return f"<EmbeddedHoncho {self._path}>"
