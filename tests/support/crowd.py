"""Processes that share a state folder, and what happens to them, to their clocks and to the folder."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from support.processes import Victim

__all__ = ["SHARED", "Crowd", "WallClock"]

SHARED = "shared"
"""A session that all processes write to."""

# The longest jump is some twelve days: 10 ** 6 seconds.
_LONGEST_JUMP_EXPONENT = 6.0
_START_SECONDS = 60.0


class WallClock:
    """A wall clock that jumps at random; the processes of a crowd read it from a file."""

    def __init__(self, path: Path, dice: random.Random, events: Counter[str]) -> None:
        self.path = path
        self._dice = dice
        self._events = events
        self._set(0.0)

    def change(self) -> None:
        """Let it jump now and then, by seconds to days, or to the time before it is set."""
        chance = self._dice.random()
        if chance < 0.04:
            sign = self._dice.choice([-1, 1])
            self._set(sign * 10 ** self._dice.uniform(0.0, _LONGEST_JUMP_EXPONENT))
        elif chance < 0.05:
            self._set(0.0)
        elif chance < 0.055:
            self._set(1000.0 - time.time())
        else:
            return
        self._events["clock jumps"] += 1

    def _set(self, seconds: float) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text(str(seconds), "ascii")
        draft.replace(self.path)


class Crowd:
    """Processes that share a state folder, each with a session of its own and one that all write to.

    Args:
        url: the server.
        home: the state folder; copies of it are beside it.
        size: how many processes.
        clock: their wall clock.
        calm: returns when the server works on nothing.
        dice: where moments come from.
        events: counts what happened.
        settings: the providers' settings.

    Attributes:
        ended: the processes that have ended.
        sessions: the sessions of single processes.
        homes: the state folder and the copies in which processes ran.
        not_restored: what was accepted after the backup that was put back.
    """

    def __init__(
        self,
        url: str,
        home: Path,
        size: int,
        *,
        clock: WallClock,
        calm: Callable[[], None],
        dice: random.Random,
        events: Counter[str],
        settings: Mapping[str, object],
    ) -> None:
        self._url = url
        self._home = home
        self._clock = clock
        self._calm = calm
        self._dice = dice
        self._events = events
        self._settings = settings
        self._stopped: dict[int, int] = {}
        self._runs: Counter[int] = Counter()
        self._boots = 0
        self._backup: tuple[Path, float] | None = None
        self._back_in: int | None = None
        self.ended: list[Victim] = []
        self.not_restored: set[str] = set()
        self.homes = [home]
        self.sessions = [f"own-{place}" for place in range(size)]
        self._living: list[Victim] = []
        self._begin_all()

    @property
    def boot(self) -> str | None:
        """The boot that processes which begin now believe in; None for the machine's own."""
        return f"boot-{self._boots}" if self._boots else None

    def change(self) -> None:
        """Kill, stop or restart one of them, back the folder up, put a backup back, or use a copy, now and then."""
        self._change_one()
        if self._back_in is not None:
            self._back_in -= 1
            if self._back_in <= 0:
                self._back_in = None
                self._move_to(self.homes[0])
            return
        chance = self._dice.random()
        if chance < 0.02:
            self.back_up()
        elif chance < 0.03:
            self.restore()
        elif chance < 0.034:
            self.use_copy()

    def back_up(self) -> None:
        """Copy the folder while its processes stand still."""
        for victim in self._living:
            victim.pause()
        copy = self._home.with_name("backup")
        shutil.rmtree(copy, ignore_errors=True)
        at = time.monotonic()
        shutil.copytree(self._home, copy)
        self._backup = copy, at
        for place, victim in enumerate(self._living):
            if place not in self._stopped:
                victim.signal(signal.SIGCONT)
        self._events["backups"] += 1

    def restore(self) -> None:
        """Kill all processes, put the backup back, and begin again; nothing if there is no backup."""
        if self._backup is None:
            return
        copy, at = self._backup
        self._kill_all()
        for victim in self.ended:
            if victim.home == self._home:
                self.not_restored.update(text for text, (_, ended) in victim.times.items() if ended > at)
        if self._dice.random() < 0.5:
            # The files are replaced in the folder, or the folder itself is.
            shutil.rmtree(self._home)
        else:
            for path in self._home.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(copy, self._home, dirs_exist_ok=True)
        self._begin_all()
        self._events["restored backups"] += 1

    def use_copy(self) -> None:
        """Kill all processes and run them on a copy of the folder for a while."""
        self._kill_all()
        copy = self._home.with_name(f"copy-{len(self.homes)}")
        shutil.copytree(self._home, copy)
        self.homes.append(copy)
        self._back_in = self._dice.randrange(10, 60)
        self._home = copy
        self._begin_all()
        self._events["copies used"] += 1

    def end(self) -> None:
        """Kill one half of them and let the other shut down."""
        for place, victim in enumerate(self._living):
            if place % 2:
                victim.kill()
            else:
                victim.signal(signal.SIGCONT)
                victim.finish()
            self.ended.append(victim)
        self._living = []

    def _change_one(self) -> None:
        for place in [place for place, ticks in self._stopped.items() if ticks <= 0]:
            self._living[place].signal(signal.SIGCONT)
            del self._stopped[place]
        for place in self._stopped:
            self._stopped[place] -= 1
        place, chance = self._dice.randrange(len(self._living)), self._dice.random()
        if chance < 0.05:
            self._replace(place, self._living[place].kill)
            self._events["kills"] += 1
        elif place in self._stopped:
            return
        elif chance < 0.06:
            self._replace(place, self._living[place].finish)
            self._events["restarts"] += 1
        elif chance < 0.08:
            self._living[place].signal(signal.SIGSTOP)
            self._stopped[place] = self._dice.randrange(5, 40)
            self._events["stops"] += 1

    def _move_to(self, home: Path) -> None:
        self._kill_all()
        self._home = home
        self._begin_all()

    def _kill_all(self) -> None:
        """Kill all, and let the server end what they had asked for: putting a backup back takes longer than that."""
        for victim in self._living:
            victim.kill()
        self.ended += self._living
        self._living = []
        self._stopped.clear()
        self._calm()
        if self._dice.random() < 0.5:
            self._reboot()

    def _begin_all(self) -> None:
        self._living = [self._begin(place) for place in range(len(self.sessions))]
        for victim in self._living:
            victim.hear("ready", _START_SECONDS)

    def _reboot(self) -> None:
        """Let the processes that begin from now on believe in another boot."""
        self._boots += 1
        self._events["reboots"] += 1

    def _replace(self, place: int, end: Callable[[], object]) -> None:
        end()
        self._stopped.pop(place, None)
        self.ended.append(self._living[place])
        if self._dice.random() < 0.1:
            self._reboot()
        self._living[place] = self._begin(place)

    def _begin(self, place: int) -> Victim:
        self._runs[place] += 1
        options: dict[str, object] = {"clock": self._clock.path, "interrupts": self._dice.randrange(2**31)}
        if self.boot is not None:
            options["boot"] = self.boot
        victim = Victim(self._home, self.sessions[place], options=options, base_url=self._url, **self._settings)
        victim.order("chat", f"{place}.{self._runs[place]}", self._dice.choice([0.01, 0.03, 0.1]), SHARED)
        return victim
