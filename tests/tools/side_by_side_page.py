"""The page of the side-by-side benchmark, its plot and its JSON, from what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["DOCS", "page", "plot", "write"]

DOCS = Path(__file__).parents[2] / "docs"
EVEN = 1.1
"""Less than a tenth apart is called even."""

TITLES = {
    "wait": (
        "How long the caller waits",
        (
            "`sync_turn` and a tool call (`honcho_profile`) with a server that is healthy, takes 300 ms for every "
            "request, or hangs. The calls come right after the turns: "
            "this provider first waits for the pending sync. An error counts as an answer too."
        ),
    ),
    "start": (
        "From `initialize` to the first tool call that succeeds",
        "Every request takes 100 ms. A refused call is repeated after 20 ms. Imports are included.",
    ),
    "requests": (
        "Requests a turn",
        "Prefetch, sync and the next prefetch of each turn, in an open conversation, all through the host's manager.",
    ),
    "backlog": (
        "A backlog after an outage",
        (
            "Three hundred turns are given to the host's manager while connections are refused; two seconds later the "
            "server is back. Lost, doubled and misplaced messages are counted after 20 s at most."
        ),
    ),
    "outage": ("An outage in the middle of 20 turns", "Connections are refused for some five seconds."),
    "lost-answers": (
        "Lost answers",
        "In 20 turns, the connection of every third write of messages is reset after the work and before the answer.",
    ),
    "kill": (
        "SIGKILL",
        (
            "Every request takes 100 ms. In ten conversations the process is killed after `sync_turn` has returned for "
            "one turn, two, … ten, while the next call has been running for 0 to 180 ms. Another process then "
            "continues the conversation. Accepted turns must arrive."
        ),
    ),
    "exit": (
        "The end of the process",
        (
            "The server hangs, and a turn is pending. With the host's `shutdown_all`, which waits five seconds for "
            "the pending sync, and without it."
        ),
    ),
    "sessions": ("Two hundred conversations in one process", "Each has one turn."),
    "conclusions": ("Thirteen conclusions in a row", "Every request takes 50 ms."),
}

REASONS = {
    ("wait", "tool call, healthy server, p50"): (
        "The card is empty: three requests here (both cards, and the reason why one is empty), two there."
    ),
    ("wait", "tool call, healthy server, p99"): "The first call waits for the turns before it.",
    ("wait", "tool call, slow server, p50"): "Three requests against two, each of 300 ms.",
    ("wait", "tool call, slow server, p99"): "The first call waits for the turns before it too.",
    ("wait", "tool call, hung server, p99"): (
        "The first call waits for the pending sync, at most `HONCHO_SYNC_JOIN_TIMEOUT` (10 s); the next call does not."
    ),
    ("exit", "exit without shutdown"): (
        "A hanging request is cut when the exit of the interpreter is noticed, which is checked every 0.25 s."
    ),
    ("sessions", "until all turns"): (
        "The members of each session are listed before any joins, and each turn is flushed to the disk."
    ),
    (
        "sessions",
        "open files",
    ): "Each conversation has a connection, closed after four idle seconds.",
    ("sessions", "memory"): "Each conversation has a client, an outbox and recall.",
}
"""Why the bundled provider does better in a measure of a scenario, where it does: the measure's beginning."""

INTRO = """# Benchmarks

This provider and the `honcho` provider bundled with Hermes Agent, measured side by side in one run. A script writes
this page, its [figures](benchmarks.json) and the plot.

```console
$ python tests/tools/side_by_side.py            # everything, some minutes
$ python tests/tools/side_by_side.py --quick    # fewer repetitions, within a minute
$ python tests/tools/side_by_side.py --only kill exit --json figures.json --limit 120
$ python tests/tools/side_by_side.py --write    # writes this page too
```

hermes-agent must be installed. Each provider is created as the host creates it and runs under the host's
`MemoryManager`, in a process of its own with an empty home and the same `honcho.json`. The server is an embedded
Honcho behind a proxy that misbehaves, in a third process. The server, the names, `sessionStrategy` (per-session) and
`timeout` are set for both; everything else is each one's default. Scenarios begin after the first successful tool
call, because the bundled provider accepts no turn before. Progress is printed on standard error. After `--limit` (15
minutes by default) everything ends, what was not measured is named, and the exit code is 1.

"""

READING = """
**Reading the tables.** Less is better in every line. The ratio is the bundled provider's figure divided by this
one's: above 1 this provider does better. Differences below a tenth are even. A dash is a time that did not end within
its limit, a scenario that failed, or a ratio to zero. With few calls (a slow or hung server) the p99 is the longest.
This is one run: small differences mean nothing.

![Both providers' times on a logarithmic scale; the tables below have the same figures.](benchmarks.svg)
"""


def write(result: Mapping[str, Any]) -> None:
    """Renew the page, the plot and the JSON."""
    (DOCS / "benchmarks.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(page(result), encoding="utf-8")
    (DOCS / "benchmarks.svg").write_text(plot(result["rows"]), encoding="utf-8")


def page(result: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    at, rows = result["machine"], result["rows"]
    where = (
        f"Measured on {at['date']}: {at['cores']} cores, {at['system']}, Python {at['python']}, hermes-agent "
        f"{at['hermes-agent']}, honcho-ai {at['honcho-ai']}; `timeout` {at['timeout']:g} s; {result['seconds']} s in "
        "all.\n"
    )
    parts = [INTRO, where, READING, "\n## Where the bundled provider does better\n\n", _theirs(rows)]
    for scenario, (title, text) in TITLES.items():
        parts.append(f"\n## {title}\n\n{text}\n\n| | this provider | bundled | ratio |\n| --- | --- | --- | --- |\n")
        parts += [_line(row) for row in rows if row["scenario"] == scenario]
    return "".join(parts)


def _theirs(rows: Sequence[Mapping[str, Any]]) -> str:
    better = [row for row in rows if _verdict(row) == "bundled"]
    lines = [
        f"- {TITLES[row['scenario']][0]}: {row['what']}: {_shown(row['bundled'], row['unit'])}, "
        f"here {_shown(row['ours'], row['unit'])}.{_reason(row)}\n"
        for row in better
    ]
    return "".join(lines) or "Nowhere in this run.\n"


def _reason(row: Mapping[str, Any]) -> str:
    found = (
        text
        for (scenario, what), text in REASONS.items()
        if scenario == row["scenario"] and row["what"].startswith(what)
    )
    return f" {text}" if (text := next(found, "")) else ""


def _line(row: Mapping[str, Any]) -> str:
    ours, bundled = (_shown(row[name], row["unit"]) for name in ("ours", "bundled"))
    return f"| {row['what']} | {ours} | {bundled} | {_ratio(row)} |\n"


def _ratio(row: Mapping[str, Any]) -> str:
    ours, bundled = row["ours"], row["bundled"]
    if _verdict(row) == "even":
        return "even"
    if not ours or bundled is None or ours < 0 or bundled < 0:
        return "-"
    return f"{bundled / ours:.2g}" if bundled / ours < 100 else f"{bundled / ours:.0f}"


def _verdict(row: Mapping[str, Any]) -> str:
    ours, bundled = row["ours"], row["bundled"]
    if ours is None or bundled is None:
        return "even" if ours is bundled else "bundled" if ours is None else "ours"
    if max(ours, bundled) <= EVEN * min(ours, bundled) or ours == bundled:
        return "even"
    return "ours" if ours < bundled else "bundled"


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,g} {unit}".strip()


def plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """The times of both as pairs of bars on a logarithmic scale, readable on light and dark."""
    shown = [row for row in rows if row["unit"] in ("ms", "s") and row["ours"] and row["bundled"]]
    shown = [row for row in shown if not row["what"].endswith(("p50", "longest"))]
    names, width, step = 330, 420, 34
    times = [[row[name] * (1 if row["unit"] == "ms" else 1000) for name in ("ours", "bundled")] for row in shown]
    low = math.floor(math.log10(min((min(pair) for pair in times), default=1)))
    high = math.ceil(math.log10(max((max(pair) for pair in times), default=10)))
    scale = width / max(1, high - low)
    height = 60 + step * len(shown)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {names + width + 90} {height}" role="img" '
        'aria-labelledby="title desc" font-family="sans-serif" font-size="12">\n'
        '<title id="title">Times of this provider and the bundled one</title>\n'
        '<desc id="desc">Two bars for each measure, on a logarithmic scale in milliseconds; shorter is better. '
        "The tables of the page have the same figures.</desc>\n"
        "<style>text{fill:#222}.ours{fill:#1a7f5a}.bundled{fill:#b5651d}line{stroke:#8888}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#3fbf8f}.bundled{fill:#e09a56}}</style>\n"
        f'<rect class="ours" x="{names}" y="8" width="12" height="10"/>'
        f'<text x="{names + 18}" y="17">this provider</text>\n'
        f'<rect class="bundled" x="{names + 120}" y="8" width="12" height="10"/>'
        f'<text x="{names + 138}" y="17">bundled</text>\n'
    )
    parts = [head]
    for power in range(low, high + 1):
        x = names + (power - low) * scale
        parts.append(
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="40" y2="{height - 8}"/>'
            f'<text x="{x:.0f}" y="36" text-anchor="middle">{10.0**power:,g} ms</text>\n'
        )
    for number, (row, pair) in enumerate(zip(shown, times, strict=True)):
        y = 48 + number * step
        parts.append(f'<text x="{names - 8}" y="{y + 15}" text-anchor="end">{escape(row["what"])}</text>\n')
        for place, (name, time) in enumerate(zip(("ours", "bundled"), pair, strict=True)):
            long = max(2.0, (math.log10(time) - low) * scale)
            top, figure = y + place * 12, _shown(row[name], row["unit"])
            parts.append(
                f'<rect class="{name}" x="{names}" y="{top}" width="{long:.0f}" height="10"/>'
                f'<text x="{names + long + 5:.0f}" y="{top + 9}" font-size="10">{figure}</text>\n'
            )
    return "".join([*parts, "</svg>\n"])
