"""A batch as requests: looked for, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from honcho_exec.errors import Rejected, Unavailable
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement
from honcho_exec.rows import Batch, OutboxRow

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["known", "there", "write"]

T = TypeVar("T")

# A message that waited longer than this (seconds) is sent with the time it was said. Others take the server's
# time, since a message that seems older than its author's joining is hidden from a search by perspective.
_LONG_AGO = 60.0


def there(api: HonchoApi, batch: Batch) -> bool:
    """Whether an attempt with this batch was done.

    Raises:
        RequestError: that is not known; a question that is refused is `Unavailable`, since it says nothing of the rows.
    """
    first = batch.rows[0]
    match first.write:
        case Message():
            return _asked(lambda: api.has_batch(first.ref.session, batch.id))
        case Conclusion():
            # A batch lands as a whole, but one of these may be there from before.
            conclusions = [one for one in batch.writes if isinstance(one, Conclusion)]
            return _asked(lambda: api.has_conclusions(conclusions, since=batch.first_sent_at))
        case Replacement() as wanted:
            found = _asked(lambda: _ids(api, wanted))
            return wanted.old not in found and (not wanted.new or wanted.new in found)
    return False


def known(api: HonchoApi, batch: Batch) -> list[OutboxRow]:
    """The rows that came from somewhere else before and are there already; raises as `there` does."""
    keys = {
        row.write.source_key: row
        for row in batch.rows
        if isinstance(row.write, Message) and row.write.source_key is not None
    }
    if not keys:
        return []
    found = _asked(lambda: api.known_sources(batch.rows[0].ref.session, list(keys)))
    return [row for key, row in keys.items() if key in found]


def write(api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow], now: float) -> None:
    """Write these rows of the batch, all or none; `now` is the time, in seconds since the epoch."""
    session = batch.rows[0].ref.session
    match batch.rows[0].write:
        case Message():
            api.add_messages(
                session, [_dated(row, row.write, now) for row in rows if isinstance(row.write, Message)], batch=batch.id
            )
        case Conclusion():
            api.add_conclusions(session, [row.write for row in rows if isinstance(row.write, Conclusion)])
        case Card() as card:
            api.set_card(card)
        case Replacement() as wanted:
            _replace(api, session, wanted)
        case Deletion(conclusion_id):
            try:
                api.delete_conclusion(conclusion_id)
            except Rejected as error:
                # After an attempt whose outcome is unknown, «not there» is what was wanted.
                if error.cause != "not_found" or not batch.look:
                    raise


def _replace(api: HonchoApi, session: str, wanted: Replacement) -> None:
    """Write what is missing, and only then delete what is to go, so that the fact is never in neither form there."""
    found = _ids(api, wanted)
    if wanted.new and wanted.new not in found:
        api.add_conclusions(session, [Conclusion(wanted.new, wanted.observer, wanted.observed)])
    for conclusion_id in found.get(wanted.old, ()):
        try:
            api.delete_conclusion(conclusion_id)
        except Rejected as error:
            if error.cause != "not_found":
                raise


def _ids(api: HonchoApi, wanted: Replacement) -> dict[str, list[str]]:
    return api.conclusion_ids(wanted.observer, wanted.observed, {wanted.old, wanted.new} - {""})


def _dated(row: OutboxRow, message: Message, now: float) -> Message:
    """The message with the time it was said, where the server's clock would be far off."""
    if message.created_at is not None or now - row.admitted_at < _LONG_AGO:
        return message
    return replace(message, created_at=datetime.fromtimestamp(row.admitted_at, tz=UTC).isoformat())


def _asked(question: Callable[[], T]) -> T:
    """The answer to a question; one that is refused says nothing of the rows that it is about."""
    try:
        return question()
    except Rejected as error:
        if error.cause == "auth":
            raise
        raise Unavailable(str(error), cause=error.cause, status=error.status) from error
