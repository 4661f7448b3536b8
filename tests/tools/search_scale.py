"""How long honcho_search takes with many sessions, in the embedded mode and against `honcho-exec serve`.

    python tests/tools/search_scale.py [--sessions 50 300 1100 5000] [--json]

Every session holds ten messages of 25 words, drawn from 498. Two queries are measured: four common words, one of which
stands in every fifth message, and a word that only the oldest session holds. The settings are the defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from honcho_exec import HonchoProvider
from honcho_exec.embedded import EmbeddedHoncho

_WORDS = [f"{first}{last}" for first in ("bar", "cor", "dul", "fen", "gis", "hop") for last in range(83)]
_COMMON = "what about bar7 and cor11 with dul13 or fen17"
_ONLY_OLDEST = "xylophone"
_ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Figures:
    """What one size came to, in milliseconds; `found` tells whether the oldest session was reached."""

    mode: str
    sessions: int
    common_p50_ms: float
    common_max_ms: float
    oldest_p50_ms: float
    oldest_max_ms: float
    found: bool


def main() -> None:
    """Print the figures of every size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[50, 300, 1_100, 5_000])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = [figure for sessions in arguments.sessions for figure in measure(sessions)]
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    print(f"{'mode':10}{'sessions':>9}{'common p50':>12}{'max':>9}{'oldest p50':>12}{'max':>9}  found")
    for one in figures:
        print(
            f"{one.mode:10}{one.sessions:>9}{one.common_p50_ms:>12.1f}{one.common_max_ms:>9.1f}"
            f"{one.oldest_p50_ms:>12.1f}{one.oldest_max_ms:>9.1f}  {one.found}"
        )


def measure(sessions: int) -> Iterator[Figures]:
    """Fill a state folder and search it in both modes."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with HonchoProvider(environ={}, home=state) as provider:
            provider.remember("first", "user", "hello")
            provider.flush(60)
            status = provider.status()
            _fill(state / "memory.db", status.workspace, status.user_peer, status.ai_peer, sessions)
            yield _searched("embedded", sessions, provider)
        with _served(state) as (url, key):
            environ = {"HONCHO_BASE_URL": url, "HONCHO_API_KEY": key, "HONCHO_WORKSPACE": status.workspace}
            with HonchoProvider(environ=environ, home=Path(folder) / "other") as provider:
                yield _searched("served", sessions, provider)


def _searched(mode: str, sessions: int, provider: HonchoProvider) -> Figures:
    common, _ = _timed(provider, _COMMON)
    oldest, answer = _timed(provider, _ONLY_OLDEST)
    found = _ONLY_OLDEST in answer
    return Figures(
        mode, sessions, statistics.median(common), max(common), statistics.median(oldest), max(oldest), found
    )


def _timed(provider: HonchoProvider, query: str) -> tuple[list[float], str]:
    took, answer = [], ""
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        answer = provider.handle_tool_call("honcho_search", {"query": query})
        took.append((time.perf_counter() - start) * 1000)
    return took[1:], answer


def _fill(path: Path, workspace: str, user: str, assistant: str, sessions: int) -> None:
    at = "2026-01-01T00:00:00.000000Z"

    def records() -> Iterator[tuple[str, object]]:
        yield "1", {"kind": "honcho_exec", "version": 1}
        placed = {"workspace": workspace, "metadata": {}, "created_at": at}
        for number in range(sessions):
            yield "2", {**placed, "kind": "session", "id": f"s{number}", "is_active": True, "configuration": {}}
        for number in range(sessions):
            for peer in (user, assistant):
                member = {"workspace": workspace, "session": f"s{number}", "peer": peer, "joined_at": at}
                yield "3", {**member, "kind": "member", "observe_me": None, "observe_others": None, "left_at": None}
        for number in range(sessions):
            for turn in range(10):
                said = [_WORDS[(number * 7919 + turn * 104729 + k * k * 31) % len(_WORDS)] for k in range(25)]
                if number == turn == 0:
                    said.append(_ONLY_OLDEST)
                message = {"session": f"s{number}", "peer": (user, assistant)[turn % 2], "id": f"m{number}-{turn}"}
                yield "4", {**placed, **message, "kind": "message", "content": " ".join(said), "token_count": 40}

    honcho = EmbeddedHoncho(path)
    honcho.load(records())
    honcho.close()


@contextmanager
def _served(state: Path) -> Iterator[tuple[str, str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "honcho_exec", "serve", "--port", "0", "--json"],
        env=os.environ | {"HONCHO_EXEC_HOME": str(state)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        told = json.loads(process.stdout.readline() if process.stdout else "{}")
        try:
            yield told["url"], Path(told["key_file"]).read_text().strip()
        finally:
            process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
