"""The facts of the real server's OpenAPI document; `docs/tools/make_api_facts.py` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["operations", "read"]


def read() -> dict[str, Any]:
    """Return an OpenAPI document with the paths, types, limits and status codes of the real server."""
    text = Path(__file__).with_name("honcho-api-2026-08.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def operations() -> list[tuple[str, str]]:
    """Return every method and path of the document."""
    return [(method.upper(), path) for path, methods in read()["paths"].items() for method in methods]
