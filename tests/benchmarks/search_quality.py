"""How much of what answers a question is among the first hits of a search with the question's text.

    python tests/benchmarks/search_quality.py FOLDER [--limit 10] [--json]

FOLDER holds conversations: `NAME.jsonl`, one message a line (id, session, created_at, name, content), and
`NAME.qa.jsonl`, one question a line (question, evidence: ids of messages). Questions without evidence are
skipped. The score of a question is the share of its evidence among the hits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
from honcho import Honcho

from honcho_exec.embedded import EmbeddedHoncho

Search = Callable[[str, int], list[str]]
"""The ids of the first hits for a text."""

_BATCH = 100


@dataclass(frozen=True, slots=True)
class Score:
    """What one conversation came to."""

    conversation: str
    messages: int
    questions: int
    found: float
    search_ms: float


def main() -> None:
    """Print the scores of every conversation and their mean."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scores = [
        measure(path, arguments.limit)
        for path in sorted(arguments.folder.glob("*.jsonl"))
        if not path.name.endswith(".qa.jsonl")
    ]
    if not scores:
        sys.exit(f"no conversations in {arguments.folder}")
    mean = statistics.mean(score.found for score in scores)
    if arguments.json:
        print(json.dumps({"conversations": [asdict(score) for score in scores], "mean": mean}, indent=2))  # noqa: T201 - the output of a script
        return
    print(f"{'conversation':16}{'messages':>10}{'questions':>11}{'found':>8}{'search':>10}")  # noqa: T201 - the output of a script
    for score in scores:
        print(  # noqa: T201 - the output of a script
            f"{score.conversation:16}{score.messages:>10}{score.questions:>11}{score.found:>8.3f}"
            f"{score.search_ms:>7.1f} ms"
        )
    print(f"{'mean':37}{mean:>8.3f}")  # noqa: T201 - the output of a script


def measure(path: Path, limit: int) -> Score:
    """Store one conversation and ask its questions."""
    messages = _lines(path)
    questions = [item for item in _lines(path.with_suffix(".qa.jsonl")) if item["evidence"]]
    with tempfile.TemporaryDirectory() as folder:
        honcho = EmbeddedHoncho(Path(folder) / "memory.db")
        search = store(honcho, messages)
        shares, times = [], []
        for item in questions:
            start = time.perf_counter()
            hits = search(item["question"], limit)
            times.append(time.perf_counter() - start)
            shares.append(sum(id_ in hits for id_ in item["evidence"]) / len(item["evidence"]))
        honcho.close()
    return Score(path.stem, len(messages), len(questions), statistics.mean(shares), statistics.median(times) * 1000)


def store(honcho: EmbeddedHoncho, messages: list[dict[str, Any]]) -> Search:
    """Store a conversation as its sessions went, and say how it is searched."""
    http = httpx.Client(transport=httpx.WSGITransport(app=honcho.app))
    client = Honcho(
        base_url="http://embedded", api_key="none", workspace_id="benchmark", http_client=http, max_retries=0
    )
    peers = {name: client.peer(name) for name in sorted({message["name"] for message in messages})}
    for session_id, said in groupby(messages, key=lambda message: message["session"]):
        session = client.session(session_id)
        turns = [
            peers[message["name"]].message(
                message["content"], created_at=message["created_at"], metadata={"id": message["id"]}
            )
            for message in said
        ]
        for start in range(0, len(turns), _BATCH):
            session.add_messages(turns[start : start + _BATCH])
    return lambda text, limit: [str(hit.metadata["id"]) for hit in client.search(text, limit=limit)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
