"""Reduce an OpenAPI document of Honcho to the facts that tests compare with.

Keeps paths, methods, parameters, types, required fields, limits, defaults and status codes. Leaves out every
sentence, name of a person and link: the text of the document is under another licence than this project.

    python docs/tools/make_api_facts.py openapi.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parents[2] / "tests" / "support" / "honcho-api-2026-08.json"

# Keys of an OpenAPI or JSON Schema object that state a fact; every other key holds prose or a label.
KEPT = frozenset(
    {
        *("openapi", "paths", "components", "schemas", "parameters", "requestBody", "responses", "content", "schema"),
        *("name", "in", "required", "$ref", "type", "format", "enum", "const", "default", "pattern", "properties"),
        *("items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "additionalProperties", "contentMediaType"),
        *("minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "nullable"),
    }
)
# The keys of these objects are names that the API chose, such as a path or a property.
NAMED = frozenset({"paths", "schemas", "properties", "responses", "content"})
METHODS = frozenset({"get", "put", "post", "patch", "delete", "head", "options"})


def facts(node: Any, *, named: bool = False) -> Any:
    """Return `node` without prose; the keys of a `named` object are kept whatever they are."""
    if isinstance(node, list):
        return [facts(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: facts(value, named=key in NAMED and not named)
        for key, value in node.items()
        if named or key in KEPT or key in METHODS
    }


def reduce(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document with the facts of `document` and the least prose that the format requires."""
    reduced: dict[str, Any] = facts(document)
    reduced["info"] = {"title": "Honcho", "version": "main of August 2026"}
    for methods in reduced["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                response["description"] = ""
    return reduced


def main() -> None:
    """Write the facts of the document that is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, help="the server's own document, from its /openapi.json")
    document = json.loads(parser.parse_args().document.read_text(encoding="utf-8"))
    FACTS.write_text(json.dumps(reduce(document), indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
