"""The JSON that tools answer with."""

from __future__ import annotations

import json
from collections.abc import Mapping

from honcho_exec.errors import HonchoExecError, Queued
from honcho_exec.text.cleaning import harmless
from honcho_exec.text.neutralize import neutralize
from honcho_exec.text.redaction import redact

__all__ = ["error_answer", "to_json"]


def error_answer(tool: str, error: HonchoExecError) -> str:
    """Return a tool's answer for an error: what failed, when to try again, and whether a write is kept."""
    answer: dict[str, object] = {
        "error": redact(str(error)),
        "tool": redact(tool),
        "retryable": error.retryable,
        "cause": error.cause,
    }
    if error.retryable:
        answer["retry_after"] = round(max(1.0, error.retry_after or 1.0), 1)
    if isinstance(error, Queued):
        answer["queued"] = True
    return to_json(answer)


def to_json(answer: Mapping[str, object]) -> str:
    """Return an answer as JSON that can be encoded and holds no text that looks like a tool call."""
    return harmless(json.dumps(_neutralized(answer), ensure_ascii=False))


def _neutralized(value: object) -> object:
    if isinstance(value, str):
        return neutralize(harmless(value))
    if isinstance(value, list):
        return [_neutralized(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _neutralized(item) for key, item in value.items()}
    return value
