"""The requests of a batch: verify what is stored, and send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from honcho_exec.errors import Rejected, Unavailable
from honcho_exec.model import Card, Conclusion, Deletion, Message, Replacement
from honcho_exec.outbox.rows import Batch, OutboxRow

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["already_stored", "exists", "newest_message_at", "send"]

T = TypeVar("T")


def exists(api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    """Return those of some rows of a batch that Honcho has, no matter which process sent them.

    Messages are found by the keys of their rows, conclusions by their content: equal ones are one.

    Raises:
        RequestError: that is not known; a refused question is `Unavailable`, since it says nothing of the rows.
    """
    first = rows[0]
    session = first.ref.session
    match first.write:
        case Message():
            return _ask(lambda: _stored_messages(api, session, batch, rows))
        case Conclusion(observer=observer, observed=observed):
            contents = {text for row in rows for text in row.write.texts}
            known = _ask(lambda: api.known_conclusions(observer, observed, contents))
            return [row for row in rows if known.issuperset(row.write.texts)]
        case Replacement() as wanted:
            found = _ask(lambda: _ids(api, wanted))
            done = wanted.old not in found and (not wanted.new or wanted.new in found)
            return list(rows) if done else []
    return []


def _stored_messages(api: HonchoApi, session: str, batch: Batch, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    keys = {row.key for row in rows if row.key is not None}
    known = api.known_rows(session, keys) if keys else frozenset()
    # Messages of earlier versions carry only the id of their batch, which was stored as a whole.
    has_batch = any(row.key is None for row in rows) and api.has_batch(session, batch.id)
    return [row for row in rows if (has_batch if row.key is None else row.key in known)]


def already_stored(api: HonchoApi, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    """Return the rows whose source key Honcho has already; raises as `exists` does."""
    keys = {
        row.write.source_key: row for row in rows if isinstance(row.write, Message) and row.write.source_key is not None
    }
    if not keys:
        return []
    found = _ask(lambda: api.known_sources(rows[0].ref.session, list(keys)))
    return [row for key, row in keys.items() if key in found]


def newest_message_at(api: HonchoApi, session: str) -> float | None:
    """Return when the newest message of a session was created by the server's clock, in seconds since the epoch."""
    at = _ask(lambda: api.newest_message_at(session))
    return None if at is None else at.timestamp()


def send(api: HonchoApi, batch: Batch, rows: Sequence[OutboxRow], times: Mapping[int, str]) -> None:
    """Write these rows of the batch, all or none.

    Args:
        api: the server.
        batch: the batch that the rows belong to.
        rows: the rows that Honcho does not have.
        times: what to date messages with, by the ids of their rows; other messages get the server's time.
    """
    session = batch.rows[0].ref.session
    match batch.rows[0].write:
        case Message():
            messages = [
                replace(row.write, created_at=times.get(row.id, row.write.created_at))
                for row in rows
                if isinstance(row.write, Message)
            ]
            api.add_messages(session, messages, batch=batch.id, keys=[row.key for row in rows])
        case Conclusion():
            api.add_conclusions(session, [it for row in rows for it in row.write.conclusions])
        case Card() as card:
            api.set_card(card)
        case Replacement() as wanted:
            _replace(api, session, wanted)
        case Deletion(conclusion_id):
            try:
                api.delete_conclusion(conclusion_id)
            except Rejected as error:
                # After an attempt whose outcome is unknown, `not_found` is success.
                if error.cause != "not_found" or not batch.must_verify:
                    raise


def _replace(api: HonchoApi, session: str, wanted: Replacement) -> None:
    """Write the new conclusion before the old one is deleted, so that the fact is always stored in one form."""
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


def _ask(question: Callable[[], T]) -> T:
    """Return the answer to a question; a refused question says nothing of the rows that it is about."""
    try:
        return question()
    except Rejected as error:
        if error.cause == "auth":
            raise
        raise Unavailable(str(error), cause=error.cause, status=error.status) from error
