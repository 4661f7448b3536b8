"""Write docs/settings.md from the settings: python docs/tools/make_settings.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.alias_generators import to_camel

from honcho_exec.settings import Settings, extra, variables

PAGE = Path(__file__).parents[1] / "settings.md"

# The table of the page; what is around it is written by hand.
TABLE = re.compile(r"(?<=<!-- made by docs/tools/make_settings.py -->\n\n)(?:\|.*\n)*")


def page() -> str:
    """Return the text of the page with a new table."""
    rows = ["| variable | key in the file | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        declared = extra(name)
        keys = [to_camel(name), *declared["file"]]
        unit = f" {declared['unit']}" if declared["unit"] else ""
        shown = _shown(field.default)
        default = shown if shown == "-" else shown + unit
        rows.append(f"| {_code(variables(name))} | {_code(keys)} | {default} | {_escape(field.description)} |")
    table = "\n".join(rows) + "\n"
    return TABLE.sub(lambda _: table, PAGE.read_text(encoding="utf-8"), count=1)


def _escape(text: str | None) -> str:
    return (text or "").replace("<", "&lt;")


def _code(names: object) -> str:
    return ", ".join(f"`{name}`" for name in names)  # type: ignore[attr-defined] # any iterable of names


def _shown(value: object) -> str:
    if value is None or value == "" or isinstance(value, SecretStr):
        return "-"
    if isinstance(value, BaseModel):
        return "-"
    if isinstance(value, bool | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
