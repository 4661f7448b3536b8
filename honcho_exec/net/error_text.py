"""What a server says of a request it refused, as it may be logged and kept: without what the request held.

A server, or a proxy before it, may repeat what was sent, whole or cut, quoted or escaped. So a word of its text is
passed on only when it is none of the request's, or so plain that it tells nothing.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

from honcho_exec.text.folding import folded

__all__ = ["server_words"]

_LONGEST = 200
_MASK = "…"

# A longer word may hold a part of what was sent, which is as telling from so many characters on.
_PART = 5

# ASCII and other letters are words of their own, since an escape may be glued to either.
_WORD = re.compile(r"[A-Za-z0-9]+|[^\W_A-Za-z0-9]+")
_ESCAPE = re.compile(r"\\+(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|[nrt])")

_SIGN = re.compile(r"[^\w\s.,:;()\[\]<>=/'\"-]")
_MASKS = re.compile(rf"{_MASK}(?:\W*{_MASK})+")

# Names, not text: they are what an answer is useful for.
_NAMES = {"id", "peer_id", "session_id", "observer_id", "observed_id", "created_at"}

_PLAIN = frozenset(
    """
    a an and any are as at be body but by can cannot characters content could data does empty error exceed exceeded
    exceeds expected extra failed field fields for found from greater has have if in input integer internal invalid is
    it item items json large least length less limit list long many max maximum may message messages min minimum
    missing most must no not number object of on only or peer permitted permission query rate request required server
    session should size string than that the this to token tokens too type unexpected valid validation value was with
    workspace
    """.split()  # noqa: SIM905 - a list of them is three times as long
)


def server_words(detail: object, sent: bytes) -> str:
    """The text of an error answer's `detail`, at most 200 characters, without the words of the request.

    Args:
        detail: any JSON; a list of validation errors gives their places and messages, and not their inputs.
        sent: the request's body, JSON or empty.
    """
    words = "\n".join(folded(text, "NFKD") for text in _texts(_json(sent)))
    return _masked(_text(detail), words)


def _text(detail: object) -> str:
    if not isinstance(detail, list):
        return _short(detail)
    problems = (one for one in detail[:10] if isinstance(one, dict))
    return "; ".join(f"{_place(one.get('loc'))}: {_short(one.get('msg'))}" for one in problems)


def _place(loc: object) -> str:
    return ".".join(map(_short, loc[:10])) if isinstance(loc, list) else _short(loc)


def _short(value: object) -> str:
    return str(value)[: 2 * _LONGEST] if isinstance(value, str | int) else ""


def _masked(text: str, words: str) -> str:
    """`text` on one line, an ellipsis in place of its words that may be of `words`."""
    text = " ".join(_SIGN.sub(" ", _unescaped(text)).split())[:_LONGEST]
    return _MASKS.sub(_MASK, _WORD.sub(lambda word: _MASK if _tells(folded(word[0], "NFKD"), words) else word[0], text))


def _tells(word: str, words: str) -> bool:
    if word in _PLAIN:
        return False
    return word in words or any(word[at : at + _PART] in words for at in range(len(word) - _PART + 1))


def _unescaped(text: str) -> str:
    """`text` without the escapes of JSON, HTML and URLs, also of one in another."""
    for _ in range(3):
        text = _ESCAPE.sub(lambda one: chr(int(one[1] or one[2], 16)) if one[1] or one[2] else " ", text)
        text = html.unescape(unquote(text))
    return text


def _texts(value: object) -> Iterator[str]:
    """Every text of a request's body that somebody wrote."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key not in _NAMES:
                yield from _texts(one)


def _json(body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    return parsed
