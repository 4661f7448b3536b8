"""A local Honcho: the API of a Honcho server over one SQLite file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from honcho_exec.clock import Clock, SystemClock
from honcho_exec.embedded.api.app import build_app
from honcho_exec.embedded.language_model import LanguageModel
from honcho_exec.embedded.store.database import Store
from honcho_exec.embedded.store.purge import count_matches, delete_matches, matching_names
from honcho_exec.embedded.store.records import Record, dump_records, load_records
from honcho_exec.text.purge_filter import PurgeFilter

__all__ = ["EmbeddedHoncho"]


class EmbeddedHoncho:
    """Serve Honcho's API (3.0.12) from a file, in-process or by WSGI.

    Without a language model, questions are answered by quoting stored conclusions and messages, and the answer says
    so. Requests that only a Honcho server can serve are answered with 501.

    Args:
        path: the database file; created (mode 0600) if it does not exist.
        clock: the source of times and ids.
        model: answers questions; closed with the file.

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
        """Abort the language model's requests; answer by quoting from now on."""
        if self._model is not None:
            self._model.abort()

    def export(self) -> Iterator[Record]:
        """Yield everything stored as records that `load` accepts."""
        with self._store.reading() as connection:
            yield from dump_records(connection)

    def load(self, records: Iterable[tuple[str, object]]) -> Counter[str]:
        """Store exported records, all or none, each with its location for errors.

        Items that exist already are kept.

        Returns:
            How many items of each kind were new, and under `already` how many existed.

        Raises:
            InputError: a record is invalid; nothing was stored.
        """
        with self._store.writing() as writer:
            return load_records(writer, records)

    def count(self, chosen: PurgeFilter) -> Counter[str]:
        """Return how many items of each kind `purge` would delete."""
        with self._store.reading() as connection:
            return count_matches(connection, chosen)

    def matching_names(self, chosen: PurgeFilter) -> list[tuple[str, str]]:
        """Return kind and id of the sessions and peers whose id contains the text."""
        with self._store.reading() as connection:
            return matching_names(connection, chosen)

    def flush(self) -> None:
        """Empty the write-ahead log, unless another process reads it."""
        self._store.flush()

    def shrink(self) -> bool:
        """Free the space of deleted rows; False if another process uses the file."""
        return self._store.shrink()

    def purge(self, chosen: PurgeFilter) -> Counter[str]:
        """Delete what matches, leaving no trace; return the count of each kind."""
        with self._store.writing() as writer:
            counts = delete_matches(writer, chosen)
        self._store.flush()
        return counts

    def close(self) -> None:
        """Close the file; later requests are answered with 503."""
        if self._model is not None:
            self._model.close()
        self._store.close()

    def __repr__(self) -> str:
        return f"<EmbeddedHoncho {self._path}>"
