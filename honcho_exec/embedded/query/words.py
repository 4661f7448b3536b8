"""Text for the word index, and queries to it."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise
from typing import Final

from honcho_exec.embedded.query.thesaurus import related_words

__all__ = ["day_words", "estimated_tokens", "indexed", "match_expressions", "query_words"]

_MAX_WORDS: Final = 48
_BYTES_PER_TOKEN: Final = 4
# Scripts without spaces between words: each character is indexed as a word, and a query looks for pairs.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_CHARACTER: Final = re.compile(f"[{_UNSPACED}]")
_CHARACTERS: Final = re.compile(f"[{_UNSPACED}]+")
_TOKEN: Final = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_STOP_WORDS: Final = frozenset(
    """
    a about after again all also am an and any are aren as at be because been before being both but by can could
    couldn did didn do does doesn doing don done down during each ever few for from further get gets getting go goes
    going got had hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it
    its itself just let ll m many me might more most much must my myself no nor not now of off on once one only or
    other our ours ourselves out over own re s same shall she should shouldn so some such t than that the their
    theirs them themselves then there these they this those through to too under until up us ve very was wasn we
    were weren what when where which while who whom whose why will with won would wouldn you your yours yourself
    yourselves
    """.split()  # noqa: SIM905 - a hundred quoted words are hard to read
)
_MONTHS: Final = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905 - reads better
)
_DAYS: Final = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905 - reads better


def indexed(text: str) -> str:
    """Return a text as it is indexed."""
    return _CHARACTERS.sub(lambda run: f" {'  '.join(run[0])} ", text)


def day_words(created_at: str) -> str:
    """Return the words that find a day: `2023-05-08 may monday`."""
    day = datetime.fromisoformat(created_at)
    return f"{created_at[:10]} {_MONTHS[day.month - 1]} {_DAYS[day.weekday()]}"


def query_words(text: str) -> list[str]:
    """Return at most 48 distinct words; stop words only if it has no others."""
    words = list(dict.fromkeys(_TOKEN.findall(text.lower())))
    return ([word for word in words if word not in _STOP_WORDS] or words)[:_MAX_WORDS]


def match_expressions(text: str) -> list[str]:
    """Return FTS5 expressions for a query, each a fallback of the one before.

    First its words, then related words, then its words as prefixes.

    Any text is safe: only letters and digits reach an expression, in quotes.
    """
    words = query_words(text)
    phrases = list(dict.fromkeys(phrase for word in words for phrase in _phrases(word)))[: 2 * _MAX_WORDS]
    related = [f'"{word}"' for word in related_words(words)]
    expressions = (phrases, related, [f"{phrase}*" for phrase in phrases])
    return [" OR ".join(expression) for expression in expressions if expression]


def _phrases(word: str) -> list[str]:
    if len(word) == 1 or not _CHARACTER.match(word):
        return [f'"{word}"']
    return [f'"{first} {second}"' for first, second in pairwise(word)]


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens of a text; there is no tokenizer here."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)
