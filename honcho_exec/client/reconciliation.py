"""Find items in Honcho's lists, within bounds of pages and time.

A list may never end, change while it is read, or come from a server that ignores filters. So each item is checked
itself, and a look-up that reaches a bound raises `Inconclusive`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

from honcho_exec.clock import Clock, Deadline
from honcho_exec.errors import Inconclusive, Unavailable

__all__ = ["PAGE_SIZE", "Reconciliation"]

PAGE_SIZE = 100
"""The largest page that Honcho gives."""

_MAX_PAGES = 100
# No further page is asked for after this long.
_MAX_SECONDS = 10.0


class Reconciliation:
    """Look-ups in lists of the SDK, the newest items first.

    Args:
        check_page: raises unless the last answer is a page.
        clock: measures how long a look-up takes.
    """

    def __init__(self, check_page: Callable[[], None], clock: Clock) -> None:
        self._check_page = check_page
        self._clock = clock

    def marks(self, messages: Any, mark: str, wanted: Collection[str]) -> frozenset[str]:
        """Return which of the wanted marks the messages carry in their metadata.

        Raises:
            Inconclusive: the list did not end within the bounds.
            Unavailable: the list changed while it was read.
        """
        found: set[str] = set()

        def collect(page: Sequence[Any]) -> bool:
            found.update(str(message.metadata[mark]) for message in page if mark in message.metadata)
            return found.issuperset(wanted)

        if not self._scan(messages, collect):
            raise Inconclusive("the session's messages")
        return frozenset(found.intersection(wanted))

    def conclusion_ids(
        self, conclusions: Any, observer: str, observed: str, contents: Collection[str], *, until_found: bool
    ) -> dict[str, list[str]]:
        """Return the ids of conclusions of `observer` about `observed` by content, of the wanted contents.

        Args:
            conclusions: the first page of the list.
            observer: the peer that concluded.
            observed: the peer that the conclusions are about.
            contents: the wanted contents.
            until_found: whether one conclusion of each content is enough.

        Raises:
            Inconclusive: the list did not end within the bounds.
            Unavailable: the list changed while it was read.
        """
        found: dict[str, list[str]] = {}

        def collect(page: Sequence[Any]) -> bool:
            for one in page:
                if one.content in contents and (one.observer_id, one.observed_id) == (observer, observed):
                    found.setdefault(one.content, []).append(one.id)
            return until_found and len(found) == len(set(contents))

        if not self._scan(conclusions, collect):
            raise Inconclusive(f"the conclusions about {observed}")
        return found

    def has_conclusion(
        self, conclusions: Any, conclusion_id: str, observer: str, observed: str, *, session: str | None
    ) -> bool:
        """Return whether the list has this conclusion of `observer` about `observed`, from a session if one is named.

        Raises:
            Inconclusive: the list did not end within the bounds.
            Unavailable: the list changed while it was read.
        """
        found = False

        def collect(page: Sequence[Any]) -> bool:
            nonlocal found
            found = any(
                (one.id, one.observer_id, one.observed_id) == (conclusion_id, observer, observed)
                and session in (None, one.session_id)
                for one in page
            )
            return found

        if not self._scan(conclusions, collect):
            raise Inconclusive(f"the conclusions about {observed}")
        return found

    def _scan(self, page: Any, collect: Callable[[Sequence[Any]], bool]) -> bool:
        """Pass the items of each page to `collect` until it returns True or there is no further page.

        Returns False if a bound of the look-up is reached before.
        """
        deadline = Deadline.after(_MAX_SECONDS, self._clock)
        for number in count(1):
            self._check_page()
            if collect(page.items) or not page.has_next_page():
                return True
            if number == _MAX_PAGES or deadline.passed:
                break
            total = page.total
            page = page.get_next_page()
            if total is not None and page.total is not None and page.total < total:
                # What was deleted meanwhile moved the items that follow: some may have been passed over.
                raise Unavailable("the list changed while it was read", cause="changed")
        return False
