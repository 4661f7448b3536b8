"""Mask obvious secrets in texts.

A secret is obvious when its form says so (a provider's key, a JSON web token, a private key, a password in a URL) or
when its place does and it looks like nothing else (`Authorization:`, `password=`, `api_key:`, "my password is …").
Words, names, paths, hashes and ids are left alone: no text is masked only because it is long or odd.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MASK", "redact", "redact_json", "redact_key", "secrets"]

MASK = "[redacted]"
"""What stands in a secret's place."""

# Every quantifier is possessive, or bounded where it can start at many places, so that no text takes longer than in
# proportion to its length.
_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        sk-(?P<sk>[A-Za-z0-9_-]{16,}+)                                    # OpenAI, Anthropic, OpenRouter, …
      | (?:[sr]k_(?:live|test)|whsec|gh[pousr]|github_pat|hf|npm|gsk|r8|dop_v1)_(?P<under>[A-Za-z0-9_]{16,}+)
      | (?:glpat|xox[abeoprs]|xapp|xai|pplx|hch)-(?P<dash>[A-Za-z0-9_-]{10,}+)
      | pypi-AgE[A-Za-z0-9_-]{32,}+
      | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])                          # AWS
      | AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])                            # Google
      | ya29\.[A-Za-z0-9_-]{20,}+
      | SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+                      # SendGrid
      | [0-9]{8,10}:AA[A-Za-z0-9_-]{30,40}+                               # a Telegram bot
      | hooks\.slack\.com/services/(?P<hook>[A-Z0-9]{8,12}/[A-Z0-9]{8,12}/[A-Za-z0-9]{20,}+)
    )""",
    re.VERBOSE,
)
# A JSON web token. Its first part is consumed also if no token follows it: none begins within that part then either.
_WEB_TOKEN = re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}+(?P<rest>\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+)?")
_KEY_SIGNS = (
    *("sk-", "sk_", "rk_", "whsec_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "npm_", "gsk_"),
    *("r8_", "dop_v1_", "glpat-", "xox", "xapp-", "xai-", "pplx-", "hch-", "pypi-", "AKIA", "ASIA", "AIza", "ya29."),
    *("SG.", ":AA", "hooks.slack.com/"),
)

_BREAK = r"(?:\s|\\[nr])"
_PRIVATE_KEY = re.compile(
    rf"""-----BEGIN\ (?:(?!PRIVATE)[A-Z0-9]{{1,12}}\ ){{0,4}}PRIVATE\ KEY(?:\ BLOCK)?-----
    {_BREAK}*+
    (?:[A-Za-z-]{{1,30}}:\ [^\n\\]{{0,200}}{_BREAK}++){{0,5}}+            # Proc-Type, DEK-Info, Version, …
    (?:[A-Za-z0-9+/=]{{16,}}+{_BREAK}*+)++
    (?:(?:[A-Za-z0-9+/=]{{1,16}}{_BREAK}{{1,8}}){{0,3}}-----END\ [A-Z0-9\ ]{{1,60}}-----)?""",
    re.VERBOSE,
)
_IN_URL = re.compile(r"://[^\s/:@]{0,256}:(?P<value>[^\s/@]{1,256})@(?=[\w\[])")
_IN_HEADER = re.compile(
    r"""(?:\b(?P<header>authorization)["']?\s{0,4}[:=]\s{0,4}["']?(?:basic|bearer|token)|\bbearer)\s{1,4}
    (?P<value>[A-Za-z0-9._~+/=-]{8,}+)""",
    re.VERBOSE | re.IGNORECASE,
)
# The value is only looked at, so that what is in it is seen too; it holds no sign, so that it is looked at once.
_ASSIGNED = re.compile(
    r"""(?:(?P<password>passw(?:or)?d|passphrase|pwd)
      | (?P<aws>secret[_\s-]?access[_\s-]?key)
      | (?<!public)(?<!public[_\s-])(?:api|access|auth|private|secret|encryption|signing|account)[_\s-]?key
      | secret | token | credential)
    ["'`]?(?:\s(?:for|to|of|on)(?:\s[^\s:=]{1,30}){1,4}?)?                # the password for the guest network is …
    \s{0,4}(?P<sign>=>|:=|=|:|(?<=\s)(?:is|was)(?:\s{0,2}:|(?=\s)))\s{0,4}
    (?=["'`](?P<quoted>[^\s"'`]{6,512})["'`] | (?P<bare>[^\s"'`<>{}\[\](),;|:=]{6,}+={0,2})(?P<called>[(\[])?)""",
    re.VERBOSE | re.IGNORECASE,
)
_ASSIGNED_SIGNS = ("passw", "passphrase", "pwd", "key", "secret", "token", "credential")

_AWS_SECRET = re.compile(r"[A-Za-z0-9/+]{40}")
# Lengths and numbers of different characters from which a run of letters and digits is no word.
_UNBROKEN = 20
_MIXED = 12
_MIXED_GROUPS = 8
_VARIED = 8

_QUOTE_OR_BLANK = re.compile(r"[\s\"'`]")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_ALTERNATING = re.compile(r"[0-9][A-Za-z]++[0-9]|[A-Za-z][0-9]++[A-Za-z]")
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)++")
_PLACEHOLDER = re.compile(r"[/~.$%*#]|https?://|\[redacted")
_ALGORITHM = re.compile(
    r"(?:sha|md|base|utf|argon|pbkdf|aes|rsa|hs|rs|es|oauth|ntlmv|v)[_-]?[0-9]+[a-z-]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of secret, which occurs only in texts with one of its `signs` (lower case if case is ignored)."""

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], tuple[int, int] | None]
    ignores_case: bool = False


def redact(text: str) -> str:
    """Replace every obvious secret by a mask, in linear time; redacting twice changes nothing more."""
    return _mask(text, secrets(text))


def redact_json(value: Any) -> Any:
    """Mask obvious secrets in all texts and names of a JSON value.

    The name of an entry counts as text before its value: `{"password": "hunter2"}` is masked like `password=hunter2`.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list | tuple):
        return [redact_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    redacted: dict[str, Any] = {}
    for name, item in value.items():
        kept = _redact_item(name, item) if isinstance(item, str) else redact_json(item)
        redacted[name if redact(name) == name else redact_key(name)] = kept
    return redacted


def redact_key(key: str) -> str:
    """Mask obvious secrets in a key, and keep it different from every other key."""
    redacted = redact(key)
    return key if redacted == key else f"{redacted} #{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def secrets(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of the obvious secrets, in order and without overlaps."""
    found = sorted(_found(text))
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _redact_item(name: str, text: str) -> str:
    """Mask the text of an entry, as if it stood behind the entry's name."""
    quote = "" if _QUOTE_OR_BLANK.search(text) else '"'
    before = f"{name}: {quote}"
    spans = ((start - len(before), end - len(before)) for start, end in secrets(f"{before}{text}{quote}"))
    inside = [(max(0, start), min(len(text), end)) for start, end in spans]
    return _mask(text, [(start, end) for start, end in inside if start < end])


def _mask(text: str, spans: Iterable[tuple[int, int]]) -> str:
    kept: list[str] = []
    place = 0
    for start, end in spans:
        kept += text[place:start], MASK
        place = end
    return "".join([*kept, text[place:]]) if kept else text


def _found(text: str) -> Iterator[tuple[int, int]]:
    lower = text.lower()
    for kind in _KINDS:
        within = lower if kind.ignores_case else text
        if any(sign in within for sign in kind.signs):
            yield from (span for match in kind.pattern.finditer(text) if (span := kind.span(match)) is not None)


def _key(match: re.Match[str]) -> tuple[int, int] | None:
    body = match["sk"] or match["under"] or match["dash"]
    if body is not None and not (_is_unbroken(body) or _is_mixed(body)):
        return None
    return match.span("hook") if match["hook"] else match.span()


def _in_url(match: re.Match[str]) -> tuple[int, int] | None:
    return None if re.match(r"[$%<*{\[]", match["value"]) else match.span("value")


def _in_header(match: re.Match[str]) -> tuple[int, int] | None:
    value = match["value"]
    certain = _has_both(value) or value.endswith("=") if match["header"] else _is_unbroken(value) or _is_mixed(value)
    return match.span("value") if certain else None


def _assigned(match: re.Match[str]) -> tuple[int, int] | None:
    group = "quoted" if match["quoted"] else "bare"
    value, (start, _) = match[group], match.span(group)
    if group == "bare":
        value = (value.split("&")[0] if match["sign"] == "=" else value).rstrip(".:!?&")
        if match["called"] or (_DOTTED_NAME.fullmatch(value) and not _is_mixed(value)):
            return None
    if _PLACEHOLDER.match(value) or _ALGORITHM.fullmatch(value):
        return None
    if match["aws"] and _AWS_SECRET.fullmatch(value):
        return start, start + len(value)
    if match["password"]:
        return (start, start + len(value)) if _has_both(value) else None
    return (start, start + len(value)) if _is_mixed(value) else None


def _has_both(value: str) -> bool:
    return re.search("[A-Za-z]", value) is not None and re.search("[0-9]", value) is not None


def _is_unbroken(value: str) -> bool:
    """Whether a run of letters and digits is longer than a word, and not one repeated letter."""
    return any(len(piece) >= _UNBROKEN and len(set(piece)) >= _VARIED for piece in _PIECE.findall(value))


def _is_mixed(value: str) -> bool:
    """Whether letters and digits are mixed as in no word and no name with a number."""
    pieces = _PIECE.findall(value)
    mixed = [piece for piece in pieces if _ALTERNATING.search(piece)]
    if any(len(piece) >= _MIXED and len(set(piece)) >= _VARIED for piece in mixed):
        return True
    # In groups, as in an id of hexadecimal digits.
    return sum(map(len, mixed)) >= _MIXED_GROUPS and sum(map(len, pieces)) >= 2 * _MIXED


_KINDS = (
    _Kind(_KEY_SIGNS, _KEY, _key),
    _Kind(("eyJ",), _WEB_TOKEN, lambda match: match.span() if match["rest"] else None),
    _Kind(("PRIVATE KEY",), _PRIVATE_KEY, re.Match.span),
    _Kind(("://",), _IN_URL, _in_url),
    _Kind(("bearer", "authorization"), _IN_HEADER, _in_header, ignores_case=True),
    _Kind(_ASSIGNED_SIGNS, _ASSIGNED, _assigned, ignores_case=True),
)
