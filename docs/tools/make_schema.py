"""The schema of Hermes's dashboard, from the settings' own declarations; docs/tools/make_settings.py writes it."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, SecretStr
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

import honcho_exec
from honcho_exec.settings import Settings, variables

FILE = Path(honcho_exec.__file__).parent / "hermes" / "plugin" / "config_schema.py"

HEAD = '''"""What Hermes's dashboard lets a person set, made from the settings by docs/tools/make_settings.py.

It is stored in Honcho's own file, `honcho.json`, as that of the bundled provider is.
"""

from plugins.memory.config_schema import (
    KIND_BOOL,
    KIND_JSON,
    KIND_NUMBER,
    KIND_SECRET,
    KIND_SELECT,
    KIND_TEXT,
    STORAGE_HONCHO_HOST_BLOCK,
    ProviderConfigSchema,
    ProviderField,
    ProviderFieldOption,
)

__all__ = ["CONFIG_SCHEMA"]

CONFIG_SCHEMA = ProviderConfigSchema(
    name="honcho_exec",
    label="Honcho (honcho_exec)",
    storage=STORAGE_HONCHO_HOST_BLOCK,
    docs_url="https://docs.honcho.dev",
    fields=(
'''
TAIL = "    ),\n)\n"
INLINE = {"api_key", "base_url", "workspace", "peer_name", "ai_peer"}
ROOT = {"base_url"}
# Where these are empty the dashboard shows the host key, which is what counts then.
BY_HOST = {"workspace", "ai_peer"}


def text() -> str:
    """The file's text."""
    return HEAD + "".join(_field(name, field) for name, field in Settings.model_fields.items()) + TAIL


def _field(name: str, field: FieldInfo) -> str:
    kind, options = _kind(field.annotation)
    aliases = [key for key in field.json_schema_extra["file"] if "." not in key]  # type: ignore[index,call-overload,union-attr] # declared so
    values: dict[str, str] = {
        "key": _quoted(to_camel(name)),
        "label": _quoted(name.replace("_", " ").capitalize()),
        "kind": kind,
    }
    if kind == "KIND_SECRET":
        values["env_key"] = _quoted(variables(name)[0])
    else:
        values["default"] = _quoted("" if name in BY_HOST else _default(field.default))
        values["env_fallbacks"] = _tuple(variables(name))
    values["aliases"] = _tuple(aliases)
    values["description"] = _quoted(field.description or "")
    if options:
        chosen = ", ".join(f"ProviderFieldOption({_quoted(option)}, {_quoted(option)})" for option in options)
        values["options"] = f"({chosen},)"
    if name in INLINE:
        values["inline"] = "True"
    if name in ROOT:
        values["scope"] = _quoted("root")
    empty = {"()", '""'}
    lines = "".join(f"            {key}={value},\n" for key, value in values.items() if value not in empty)
    return f"        ProviderField(\n{lines}        ),\n"


def _kind(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """How the dashboard asks for a value of that type, and what may be chosen."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, types.UnionType):
        return _kind(next(one for one in arguments if one is not type(None)))
    if origin is Literal:
        return "KIND_SELECT", tuple(map(str, arguments))
    for kinds, name in (((bool,), "KIND_BOOL"), ((int, float), "KIND_NUMBER"), ((SecretStr,), "KIND_SECRET")):
        if annotation in kinds:
            return name, ()
    is_json = origin is not None or (isinstance(annotation, type) and issubclass(annotation, BaseModel | dict | tuple))
    return ("KIND_JSON" if is_json else "KIND_TEXT"), ()


def _default(value: object) -> str:
    if value is None or isinstance(value, BaseModel) or value in ({}, (), ""):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tuple(values: typing.Iterable[str]) -> str:
    inside = ", ".join(map(_quoted, values))
    return f"({inside},)" if inside else "()"
