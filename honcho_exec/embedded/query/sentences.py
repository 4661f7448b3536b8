"""Select sentences of messages; nothing here writes a sentence of its own."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from honcho_exec.embedded.query.words import indexed, query_words

__all__ = ["cut", "key_sentences", "sentences", "statements"]

_SENTENCE: Final = re.compile(r"[^.!?\n\u3002\uff01\uff1f]+[.!?\u3002\uff01\uff1f]*(?:[\"')\]]+)?")
_ASKING: Final = ("?", "\uff1f", "\u061f")
_STEM_CHARACTERS: Final = 5  # of a word, which stand for it
_MIN_WORDS: Final = 3
_MAX_CHARACTERS: Final = 240  # of a sentence in a summary


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; none spans two lines."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def statements(text: str) -> list[str]:
    """Return the sentences that state something: no questions, no greetings."""
    return [sentence for sentence, _ in _statements(text)]


def key_sentences(said: Sequence[tuple[str, str]], most: int) -> list[str]:
    """Return the sentences with the most recurring words, in their order."""
    candidates = [(speaker, *found) for speaker, text in said for found in _statements(text)]
    spread = Counter(stem for _, _, stems in candidates for stem in stems)
    weights = [_weight(stems, spread) for _, _, stems in candidates]
    chosen = sorted(range(len(candidates)), key=lambda index: (-weights[index], -index))[:most]
    selected = [candidates[index] for index in sorted(chosen)]
    return [f"{speaker}: {cut(sentence, _MAX_CHARACTERS)}" for speaker, sentence, _ in selected]


def cut(text: str, most: int) -> str:
    """Return the first `most` characters on one line, cut between words."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return line[: most - 1].rsplit(" ", 1)[0] + "…"


def _statements(text: str) -> list[tuple[str, set[str]]]:
    declarative = [(sentence, _stems(sentence)) for sentence in sentences(text) if not sentence.endswith(_ASKING)]
    return [(sentence, stems) for sentence, stems in declarative if len(stems) >= _MIN_WORDS]


def _stems(text: str) -> set[str]:
    return {word.removesuffix("s")[:_STEM_CHARACTERS] for word in query_words(indexed(text))}


def _weight(words: Iterable[str], spread: Counter[str]) -> float:
    # Recurring words count; a long sentence must not win by its length alone.
    stems = list(words)
    return sum(math.log(1 + spread[word]) for word in stems) / math.sqrt(len(stems) + 4)
