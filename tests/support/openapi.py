"""The OpenAPI document of Honcho 3.0.12, as its own server gives it out (AGPL-3.0, not part of the package)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["operations", "read"]


def read() -> dict[str, Any]:
    """The document, without the key that every route asks for: the embedded Honcho itself asks for none."""
    text = Path(__file__).with_name("honcho-openapi-3.0.12.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return document


def operations() -> list[tuple[str, str]]:
    """Every method and path of the document."""
    return [(method.upper(), path) for path, methods in read()["paths"].items() for method in methods]
