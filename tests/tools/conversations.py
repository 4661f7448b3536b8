"""Conversations to measure with, and how they are brought in.

A folder holds `NAME.jsonl`, one message a line (id, session, created_at, role, name, content), and `NAME.qa.jsonl`, one
question a line (question, evidence: ids of messages). Questions without evidence are skipped.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honcho_exec import HonchoProvider

__all__ = ["Talk", "talks"]


@dataclass(frozen=True)
class Talk:
    """One conversation and the questions about it."""

    name: str
    messages: list[dict[str, Any]]
    questions: list[dict[str, Any]]

    def bring_in(self, provider: HonchoProvider) -> None:
        """Store every message, and wait until all are there."""
        for message in self.messages:
            provider.remember(
                message["session"],
                message["role"],
                message["content"],
                name=message["name"],
                created_at=message["created_at"],
                metadata={"id": message["id"]},
            )
        if left := provider.flush(60):
            sys.exit(f"{left} messages of {self.name} did not go in")


def talks(folder: Path) -> list[Talk]:
    """All conversations of a folder; ends the program when there is none."""
    paths = [path for path in sorted(folder.glob("*.jsonl")) if not path.name.endswith(".qa.jsonl")]
    if not paths:
        sys.exit(f"there is no conversation in {folder}")
    return [
        Talk(path.stem, _lines(path), [item for item in _lines(path.with_suffix(".qa.jsonl")) if item["evidence"]])
        for path in paths
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
