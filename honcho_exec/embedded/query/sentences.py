"""Picking sentences out of what was said; nothing here writes a sentence of its own."""

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
_STEM: Final = 5  # characters of a word that stand for it
_FEWEST_WORDS: Final = 3
_LONGEST: Final = 240  # characters of a sentence in a summary


def sentences(text: str) -> list[str]:
    """The sentences of a text; a line never runs into the next."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def statements(text: str) -> list[str]:
    """The sentences that tell something: no questions, no greetings."""
    return [sentence for sentence, _ in _told(text)]


def key_sentences(said: Sequence[tuple[str, str]], most: int) -> list[str]:
    """Of (speaker, text) pairs the sentences whose words matter most throughout, in order, with who said them."""
    told = [(speaker, *found) for speaker, text in said for found in _told(text)]
    spread = Counter(stem for _, _, stems in told for stem in stems)
    weights = [_weight(stems, spread) for _, _, stems in told]
    chosen = sorted(range(len(told)), key=lambda place: (-weights[place], -place))[:most]
    return [f"{speaker}: {cut(sentence, _LONGEST)}" for speaker, sentence, _ in map(told.__getitem__, sorted(chosen))]


def cut(text: str, most: int) -> str:
    """At most `most` characters of a text on one line, cut between words."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return line[: most - 1].rsplit(" ", 1)[0] + "…"


def _told(text: str) -> list[tuple[str, set[str]]]:
    found = [(sentence, _stems(sentence)) for sentence in sentences(text) if not sentence.endswith(_ASKING)]
    return [(sentence, stems) for sentence, stems in found if len(stems) >= _FEWEST_WORDS]


def _stems(text: str) -> set[str]:
    return {word.removesuffix("s")[:_STEM] for word in query_words(indexed(text))}


def _weight(words: Iterable[str], spread: Counter[str]) -> float:
    # Words that come back matter; a long sentence must not win by its length alone.
    found = list(words)
    return sum(math.log(1 + spread[word]) for word in found) / math.sqrt(len(found) + 4)
