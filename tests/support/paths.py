"""Where the checkout is."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT", "TESTS", "TOOLS"]

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
TOOLS = TESTS / "tools"
