"""Declare the tools' arguments: the schemas that a model sees and the validation are made from one declaration."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from honcho_exec.errors import InputError
from honcho_exec.text.cleaning import harmless

__all__ = [
    "MAX_CONCLUSION",
    "TOOLS",
    "Arguments",
    "Conclude",
    "Context",
    "Profile",
    "Reasoning",
    "Search",
    "parse",
    "schemas",
    "system_prompt",
]

# The tools in words, for the system prompt.
_MODES = {
    "hybrid": "What Honcho knows of the user is put before each turn, and these tools reach the rest: ",
    "context": "What Honcho knows of the user is put before each turn.",
    "tools": "Nothing is put before the turns; use these tools to reach what Honcho knows: ",
}
_TOOLS = (
    "honcho_profile (standing facts), honcho_search (what was said, in every session), honcho_context (summary, "
    "representation, card, last messages), honcho_reasoning (a question answered by a language model; slow), "
    "honcho_conclude (keep, delete or list lasting facts)."
)

_MAX_QUERY = 10_000
MAX_CONCLUSION = 65_535
"""Characters of one conclusion (Honcho's limit)."""

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Query = Annotated[_Text, Field(max_length=_MAX_QUERY)]
_Peer = Annotated[
    _Text,
    Field(
        max_length=512,
        description="Whom it is about: 'user' (default), 'ai', or the id of a peer that exists in this workspace.",
    ),
]


class Arguments(BaseModel):
    """The arguments that every tool has."""

    model_config = ConfigDict(strict=True, extra="ignore")

    tool: ClassVar[str]
    peer: _Peer = "user"


class Profile(Arguments):
    """Read or overwrite a peer's card: the short list of standing facts about them.

    No query and no language model, so it is the cheapest call. Pass `card` to overwrite it. An empty card is not
    an error; the answer says why it is empty. For everything known at once use honcho_context, for what was said
    use honcho_search.
    """

    tool = "honcho_profile"
    card: Annotated[
        list[Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]] | None,
        Field(max_length=200, description="The new card, as a list of facts. Leave it out to read the present one."),
    ] = None


class Search(Arguments):
    """Find what was actually said, in every session of the user and the peer, the present one and earlier ones.

    Answers with excerpts, best first, each with who said it, when, and in which session. No language model: read
    the excerpts and judge for yourself. For an answer that weighs many facts use honcho_reasoning.
    """

    tool = "honcho_search"
    query: Annotated[_Query, Field(description="What to look for: words, a name, a topic, or a question.")]
    max_tokens: Annotated[
        int, Field(ge=50, le=2000, description="About how much text to answer with (default 800, at most 2000).")
    ] = 800


class Reasoning(Arguments):
    """Ask a question about a peer and get an answer that weighs everything stored about them.

    This is the one tool that runs a language model at Honcho, so it takes seconds and costs tokens. For a fact
    that was stated use honcho_search; for standing facts use honcho_profile or honcho_context.
    """

    tool = "honcho_reasoning"
    query: Annotated[_Query, Field(description="The question, in plain language.")]
    reasoning_level: Annotated[
        Literal["minimal", "low", "medium", "high", "max"] | None,
        Field(
            description="How deep to think. minimal: one quick fact, the answer may be cut short. low: a plain "
            "question. medium: several facts together. high, max: patterns and contradictions. Leave it out for the "
            "configured level."
        ),
    ] = None


class Context(Arguments):
    """Everything that stands on record for this session and a peer: summary, representation, card, last messages.

    No query and no language model. To look something up use honcho_search, to have a question answered use
    honcho_reasoning.
    """

    tool = "honcho_context"


class Conclude(Arguments):
    """Write, delete or list conclusions: lasting facts about a peer that later sessions build on.

    Pass exactly one of `conclusion` (to write), `delete_id` (to delete) and `list` (to list, with `query` to
    search). A `delete_id` comes from a listing and is never guessed. Deleting is for what must not be kept at all;
    a fact that has changed is corrected by a new conclusion.
    """

    tool = "honcho_conclude"
    conclusion: Annotated[
        Annotated[_Text, Field(max_length=MAX_CONCLUSION)] | None,
        Field(description="The fact to keep, as a statement."),
    ] = None
    delete_id: Annotated[
        Annotated[_Text, Field(max_length=512, pattern=r"^[A-Za-z0-9_-]+$")] | None,
        Field(description="The id of the conclusion to delete, from a listing."),
    ] = None
    list: Annotated[bool, Field(description="True lists conclusions with their ids.")] = False
    query: Annotated[_Query | None, Field(description="With `list`: what to look for. Without it: the newest.")] = None

    @model_validator(mode="after")
    def _one_action(self) -> Conclude:
        actions = [
            name
            for name, chosen in (("conclusion", self.conclusion), ("delete_id", self.delete_id), ("list", self.list))
            if chosen
        ]
        if len(actions) != 1:
            passed = " and ".join(f"`{action}`" for action in actions) or "none of them"
            raise ValueError(f"pass exactly one of `conclusion`, `delete_id` and `list` (given: {passed})")
        if self.query is not None and not self.list:
            raise ValueError("`query` goes with `list` only")
        return self


TOOLS: dict[str, type[Arguments]] = {kind.tool: kind for kind in (Profile, Search, Reasoning, Context, Conclude)}


def schemas() -> list[dict[str, Any]]:
    """Return the tools as OpenAI-style function schemas, which the caller may change."""
    # Making them takes milliseconds, and a host asks twice in each conversation.
    return deepcopy(_schemas())


@cache
def _schemas() -> list[dict[str, Any]]:
    return [
        {"name": name, "description": " ".join((kind.__doc__ or "").split()), "parameters": _parameters(kind)}
        for name, kind in TOOLS.items()
    ]


def parse(kind: type[Arguments], args: object) -> tuple[Arguments, list[str]]:
    """Validate arguments, None as left out; return them, and the names that the tool does not know."""
    if args is None:
        args = {}
    if not isinstance(args, Mapping):
        raise InputError(f"the arguments of {kind.tool} must be a JSON object, not {type(args).__name__}")
    passed = {harmless(str(name)): _harmless(value) for name, value in args.items() if value is not None}
    try:
        parsed = kind.model_validate(passed)
    except ValidationError as error:
        problems = (_problem(dict(detail)) for detail in error.errors(include_url=False))
        raise InputError("; ".join(dict.fromkeys(problems))) from None
    return parsed, [name[:80] for name in passed if name not in kind.model_fields]


def _harmless(value: object) -> object:
    """Return a value with its text made harmless, as deep as any tool declares text."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, list):
        return [harmless(item) if isinstance(item, str) else item for item in value]
    return value


def _problem(detail: Mapping[str, Any]) -> str:
    location = "".join(f"[{part}]" if isinstance(part, int) else f"`{part}`" for part in detail["loc"])
    context = detail.get("ctx", {})
    value = detail["input"]
    match detail["type"]:
        case "missing":
            what = "is required"
        case "string_type" | "int_type" | "bool_type" | "list_type":
            wanted = {"string": "a string", "int": "an integer", "bool": "true or false", "list": "a list"}
            what = f"must be {wanted[detail['type'].removesuffix('_type')]}, not {type(value).__name__}"
        case "string_too_short":
            what = "must not be empty"
        case "string_too_long":
            what = f"must be at most {context['max_length']} characters (it has {len(value)})"
        case "string_pattern_mismatch":
            what = "must be an id of letters, digits, '-' and '_', as a listing shows it"
        case "too_long":
            what = f"must have at most {context['max_length']} entries (it has {context['actual_length']})"
        case "literal_error":
            what = f"must be one of {context['expected']}"
        case "greater_than_equal":
            what = f"must be at least {context['ge']}"
        case "less_than_equal":
            what = f"must be at most {context['le']}"
        case _:
            what = str(detail["msg"]).removeprefix("Value error, ")
    return f"{location}: {what}" if location else what


def _parameters(kind: type[Arguments]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    return {
        "type": "object",
        "properties": {name: _flat(declared) for name, declared in schema["properties"].items()},
        "required": schema.get("required", []),
    }


def _flat(declared: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema without what some model APIs refuse: titles, defaults, null, nesting for null."""
    flat: dict[str, Any] = {}
    for variant in (*declared.get("anyOf", ()), declared):
        if variant.get("type") != "null":
            flat |= {key: value for key, value in variant.items() if key not in {"anyOf", "default", "title"}}
    return flat


def system_prompt(recall_mode: str) -> str:
    """Return the text for a recall mode; it is static, so that prompts stay cacheable."""
    return "# Honcho memory\n" + _MODES[recall_mode] + (_TOOLS if recall_mode != "context" else "")
