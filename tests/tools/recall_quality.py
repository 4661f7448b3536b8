"""How much of what answers a question is put before the turn that asks it, and how long the turn waits for it.

    python tests/tools/recall_quality.py FOLDER [--tokens 1000] [--json]

FOLDER holds conversations as `conversations.py` has them. Each is brought in through the provider; then every
question is a turn, with `recallSync`, so that what is put before it was asked for it. A question is held when four
fifths of the words (of four letters or more) of each message of its evidence are there. The same is counted for the
last messages of the conversation, as many as the budget takes. The wait is that of turns in the usual mode.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conversations import Talk, talks

from honcho_exec import HonchoProvider

ENOUGH = 0.8
CHARS_PER_TOKEN = 4
WAITED_TURNS = 25


@dataclass(frozen=True, slots=True)
class Score:
    """What one conversation came to: shares from 0 to 1, times in ms, characters on average."""

    conversation: str
    questions: int
    held: float
    words: float
    held_by_last_turns: float
    words_of_last_turns: float
    characters: float
    first_wait: float
    later_wait: float


def main() -> None:
    """Print the scores of every conversation and their mean."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scores = [measure(talk, arguments.tokens) for talk in talks(arguments.folder)]
    if arguments.json:
        print(json.dumps([asdict(score) for score in scores], indent=2))
        return
    heads = ("questions", "held", "words", "last turns", "words", "chars", "waits")
    print(f"{'conversation':14}" + "".join(f"{head:>11}" for head in heads))
    for score in scores:
        print(
            f"{score.conversation:14}{score.questions:>11}{score.held:>11.3f}{score.words:>11.3f}"
            f"{score.held_by_last_turns:>11.3f}{score.words_of_last_turns:>11.3f}{score.characters:>11.0f}"
            f"{score.first_wait:>7.0f}, {score.later_wait:.2f} ms"
        )
    for name in ("held", "words", "held_by_last_turns", "words_of_last_turns"):
        print(f"mean {name.replace('_', ' ')}: {statistics.mean(getattr(score, name) for score in scores):.3f}")


def measure(talk: Talk, tokens: int) -> Score:
    """Bring one conversation in, ask its questions, and then wait as a turn does."""
    messages, questions = talk.messages, talk.questions
    said = {message["id"]: message["content"] for message in messages}
    names = {message["role"]: message["name"] for message in messages}
    settings = {
        "HONCHO_PEER_NAME": names["user"],
        "HONCHO_AI_PEER": names["assistant"],
        "HONCHO_CONTEXT_TOKENS": str(tokens),
    }
    last = _last(messages, tokens * CHARS_PER_TOKEN)
    injected: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with HonchoProvider("now", environ={**settings, "HONCHO_RECALL_SYNC": "true"}, home=home) as provider:
            talk.bring_in(provider)
            injected = [provider.prefetch(item["question"]) for item in questions]
        with HonchoProvider("later", environ=settings, home=home) as provider:
            waits = [_turn(provider, item["question"]) for item in questions[:WAITED_TURNS]]
    evidence = [[_words(said[id_]) for id_ in item["evidence"] if id_ in said] for item in questions]
    recalled = [_shares(text, wanted) for text, wanted in zip(injected, evidence, strict=True)]
    of_last = [_shares(last, wanted) for wanted in evidence]
    return Score(
        talk.name,
        len(questions),
        _held(recalled),
        statistics.mean(share for shares in recalled for share in shares),
        _held(of_last),
        statistics.mean(share for shares in of_last for share in shares),
        statistics.mean(map(len, injected)),
        waits[0] * 1000,
        statistics.median(waits[1:]) * 1000,
    )


def _turn(provider: HonchoProvider, question: str) -> float:
    """A turn as the host makes it; returns the seconds that it waited for what is put before it."""
    start = time.perf_counter()
    provider.prefetch(question)
    waited = time.perf_counter() - start
    provider.queue_prefetch(question)
    # The model answers meanwhile.
    time.sleep(0.05)
    return waited


def _last(messages: Sequence[dict[str, Any]], room: int) -> str:
    lines: list[str] = []
    for message in reversed(messages):
        lines.append(f"{message['name']}: {message['content']}")
        if sum(map(len, lines)) > room:
            break
    return "\n".join(reversed(lines))[-room:]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))


def _shares(text: str, evidence: Sequence[set[str]]) -> list[float]:
    there = _words(text)
    return [len(wanted & there) / len(wanted) if wanted else 1.0 for wanted in evidence]


def _held(questions: Sequence[Sequence[float]]) -> float:
    return statistics.mean(all(share >= ENOUGH for share in shares) for shares in questions)


if __name__ == "__main__":
    main()
