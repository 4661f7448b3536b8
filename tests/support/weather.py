"""A Honcho server that can be restarted, and random faults of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.faulty import (
    Fault,
    FaultyServer,
    Rule,
    Seen,
    drip,
    garbage,
    hang,
    late_work,
    latency,
    reset_after_work,
    reset_before_work,
    status,
    wrong_json,
)

from honcho_exec.embedded import EmbeddedHoncho

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["POISON", "Restartable", "Weather"]

POSTS = ("POST", "/(messages|conclusions)$")
LISTS = ("POST", "/list$")
POISON = {"poison": status(422), "choke": status(500)}
"""Words in messages, and what the server always answers to them."""


class Restartable:
    """A Honcho that forgets all but its file when it is told to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._honcho = EmbeddedHoncho(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._honcho.close()

    def app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application."""
        return self._honcho.app(environ, start_response)

    def restart(self) -> None:
        """End, and begin again."""
        self._honcho.close()
        self._honcho = EmbeddedHoncho(self._path)


class Weather:
    """The server's faults: now these, now those, now none, a key that it refuses, and sometimes no server at all.

    Args:
        server: what misbehaves.
        honcho: what it serves.
        dice: where moments and faults come from.
        events: counts what happened.
        timeout: the clients' timeout (seconds).
    """

    def __init__(
        self,
        server: FaultyServer,
        honcho: Restartable,
        dice: random.Random,
        events: Counter[str],
        *,
        timeout: float,
    ) -> None:
        self._server = server
        self._honcho = honcho
        self._dice = dice
        self._events = events
        self._timeout = timeout
        self._rules: list[tuple[str, Rule]] = []
        self._lasts = 0
        self._down = False

    def change(self) -> None:
        """Change the weather, when it has lasted long enough."""
        self._lasts -= 1
        if self._lasts > 0:
            return
        self._lasts = self._dice.randrange(2, 30)
        self.clear_up()
        kind = self._dice.random()
        if kind < 0.12:
            self._server.stop()
            self._down = True
            self._events["outages"] += 1
            if self._dice.random() < 0.7:
                self._honcho.restart()
                self._events["server restarts"] += 1
        elif kind < 0.15:
            self._lasts = min(self._lasts, 10)
            self._rules.append(("a refused key", self._server.rule(fault=status(401))))
            self._events["refused keys"] += 1
        elif kind < 0.8:
            for _ in range(self._dice.randrange(1, 4)):
                self._put_in(self.fault())

    def clear_up(self) -> None:
        """Heal everything but what ails single messages."""
        self._server.heal()
        for word, answer in POISON.items():
            rule = self._server.rule(match=partial(_has, word), fault=answer)
            self._rules.append((f"{answer.name} for a message with {word!r}", rule))
        self._server.release()
        if self._down:
            self._server.start()
            self._down = False

    def calm(self) -> None:
        """Return when no request is worked on, whether or not its client has gone."""
        while not self._server.wait_idle(timeout=0.2):
            self._server.release()

    def met(self) -> dict[str, int]:
        """How often each fault was met."""
        faults: Counter[str] = Counter()
        for name, rule in self._rules:
            faults[name] += rule.used
        return {name: used for name, used in faults.most_common() if used}

    def fault(self) -> Fault:
        """Any fault."""
        dice = self._dice
        after = dice.random() < 0.5
        return dice.choice(
            [
                status(dice.choice([502, 503]), after_work=after),
                status(503, {"Retry-After": "1"}),
                status(429, {"Retry-After": "1"}),
                status(500, after_work=after),
                status(504, after_work=after),
                reset_before_work(),
                reset_after_work(),
                hang(after_work=after),
                garbage(after_work=after),
                wrong_json(after_work=after),
                latency(dice.uniform(0.01, 0.8), after_work=after),
                late_work(dice.uniform(self._timeout, 2.0 * self._timeout)),
                drip(0.01),
            ]
        )

    def _put_in(self, fault: Fault) -> None:
        share = self._dice.choice([0.3, 0.7, 1.0])
        where = self._dice.choice([("*", ""), POSTS, POSTS, LISTS])
        dice = random.Random(self._dice.random())  # noqa: S311 - as above

        def meets(seen: Seen) -> bool:
            return seen.is_for(*where) and dice.random() < share

        name = f"{fault.name}, work done" if fault.after_work and "work" not in fault.name else fault.name
        self._rules.append((name, self._server.rule(match=meets, fault=fault)))


def _has(word: str, seen: Seen) -> bool:
    """Whether a message with this word is among those to be written."""
    return seen.is_for("POST", "/messages$") and word in str(seen.body_json)
