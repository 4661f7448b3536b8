"""How much of what answers a question is among the first hits of a search with the question's text.

    python tests/tools/search_quality.py FOLDER [--limit 10] [--json]

FOLDER holds conversations as `conversations.py` has them. The score of a question is the share of its evidence among
the hits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from conversations import Talk, talks

from honcho_exec import HonchoProvider


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
    scores = [measure(talk, arguments.limit) for talk in talks(arguments.folder)]
    mean = statistics.mean(score.found for score in scores)
    if arguments.json:
        print(json.dumps({"conversations": [asdict(score) for score in scores], "mean": mean}, indent=2))
        return
    print(f"{'conversation':16}{'messages':>10}{'questions':>11}{'found':>8}{'search':>10}")
    for score in scores:
        print(
            f"{score.conversation:16}{score.messages:>10}{score.questions:>11}{score.found:>8.3f}"
            f"{score.search_ms:>7.1f} ms"
        )
    print(f"{'mean':37}{mean:>8.3f}")


def measure(talk: Talk, limit: int) -> Score:
    """Bring one conversation in through the provider, with no settings, and ask its questions."""
    shares, times = [], []
    with tempfile.TemporaryDirectory() as folder, HonchoProvider(environ={}, home=Path(folder)) as provider:
        talk.bring_in(provider)
        for item in talk.questions:
            start = time.perf_counter()
            hits = {str(hit.metadata["id"]) for hit in provider.search(item["question"], limit=limit)}
            times.append(time.perf_counter() - start)
            shares.append(sum(id_ in hits for id_ in item["evidence"]) / len(item["evidence"]))
    return Score(
        talk.name, len(talk.messages), len(talk.questions), statistics.mean(shares), statistics.median(times) * 1000
    )


if __name__ == "__main__":
    main()
