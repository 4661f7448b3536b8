"""The five tools: their schemas, arguments and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from honcho_exec.errors import HonchoExecError, InputError, Queued, Rejected
from honcho_exec.model import Card, Conclusion, Deletion, Hit, Receipt, SessionRef, Write
from honcho_exec.settings import Settings
from honcho_exec.text import clean, cut_at_word

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.honcho_api import HonchoApi

__all__ = ["Memory", "Tools", "error_answer", "schemas"]

T = TypeVar("T")

_MAX_QUERY = 10_000
_MAX_CONCLUSION = 65_535
_CHARS_PER_TOKEN = 4


class Memory(Protocol):
    """What the tools need of the provider."""

    @property
    def ref(self) -> SessionRef:
        """The present session, whether the server has it or not."""

    def ready(self) -> SessionRef:
        """Wait for the pending sync and for the session; raises what a tool answers when they are not to be had."""

    def read(self, request: Callable[[HonchoApi], T]) -> T:
        """Make a request on the caller's thread, with bounded retries."""

    def chat(self, request: Callable[[HonchoApi], T]) -> T:
        """Make a slow request on the caller's thread."""

    def write(self, write: Write) -> Future[Receipt]:
        """Store a write durably; the Future is that of its delivery."""

    def settled(self, future: Future[Receipt]) -> Receipt:
        """Wait for a write's delivery as long as a tool may."""


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Query = Annotated[_Text, Field(max_length=_MAX_QUERY)]
_Peer = Annotated[
    _Text,
    Field(
        max_length=512,
        description="Whom it is about: 'user' (default), 'ai', or the id of a peer that exists in this workspace.",
    ),
]


class _Arguments(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    tool: ClassVar[str]
    peer: _Peer = "user"


class _Profile(_Arguments):
    """Read or overwrite a peer's card: the short list of standing facts about them.

    No query and no language model, so it is the cheapest call. Pass `card` to overwrite it. An empty card is not
    an error; the answer says why it is empty. For everything known at once use honcho_context, for what was said
    use honcho_search.
    """

    tool = "honcho_profile"
    card: Annotated[
        list[Annotated[_Text, Field(max_length=2000)]] | None,
        Field(max_length=200, description="The new card, as a list of facts. Leave it out to read the present one."),
    ] = None


class _Search(_Arguments):
    """Find what was actually said, in every session that the peer took part in, the present one and earlier ones.

    Answers with excerpts, best first, each with who said it, when, and in which session. No language model: read
    the excerpts and judge for yourself. For an answer that weighs many facts use honcho_reasoning.
    """

    tool = "honcho_search"
    query: Annotated[_Query, Field(description="What to look for: words, a name, a topic, or a question.")]
    max_tokens: Annotated[
        int, Field(ge=50, le=2000, description="About how much text to answer with (default 800, at most 2000).")
    ] = 800


class _Reasoning(_Arguments):
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


class _Context(_Arguments):
    """Everything that stands on record for this session and a peer: summary, representation, card, last messages.

    No query and no language model. To look something up use honcho_search, to have a question answered use
    honcho_reasoning.
    """

    tool = "honcho_context"


class _Conclude(_Arguments):
    """Write, delete or list conclusions: lasting facts about a peer that later sessions build on.

    Pass exactly one of `conclusion` (to write), `delete_id` (to delete) and `list` (to list, with `query` to
    search). A `delete_id` comes from a listing and is never guessed. Deleting is for what must not be kept at all;
    a fact that has changed is corrected by a new conclusion.
    """

    tool = "honcho_conclude"
    conclusion: Annotated[
        Annotated[_Text, Field(max_length=_MAX_CONCLUSION)] | None,
        Field(description="The fact to keep, as a statement."),
    ] = None
    delete_id: Annotated[
        Annotated[_Text, Field(max_length=512, pattern=r"^[A-Za-z0-9_-]+$")] | None,
        Field(description="The id of the conclusion to delete, from a listing."),
    ] = None
    list: Annotated[bool, Field(description="True lists conclusions with their ids.")] = False
    query: Annotated[_Query | None, Field(description="With `list`: what to look for. Without it: the newest.")] = None

    @model_validator(mode="after")
    def _one_action(self) -> _Conclude:
        actions = [
            name
            for name, chosen in (("conclusion", self.conclusion), ("delete_id", self.delete_id), ("list", self.list))
            if chosen
        ]
        if len(actions) != 1:
            given = " and ".join(f"`{action}`" for action in actions) or "none of them"
            raise ValueError(f"pass exactly one of `conclusion`, `delete_id` and `list` (given: {given})")
        if self.query is not None and not self.list:
            raise ValueError("`query` goes with `list` only")
        return self


_TOOLS: dict[str, type[_Arguments]] = {kind.tool: kind for kind in (_Profile, _Search, _Reasoning, _Context, _Conclude)}


def schemas() -> list[dict[str, Any]]:
    """The tools as OpenAI-style function schemas; arguments are validated against the same declarations."""
    return [
        {"name": name, "description": " ".join((kind.__doc__ or "").split()), "parameters": _parameters(kind)}
        for name, kind in _TOOLS.items()
    ]


def error_answer(tool: str, error: HonchoExecError) -> str:
    """A tool's answer for an error: what failed, whether and when to try again, and whether the write is kept."""
    answer: dict[str, object] = {
        "error": str(error),
        "tool": tool,
        "retryable": error.retryable,
        "cause": error.cause,
    }
    if error.retryable:
        answer["retry_after"] = round(max(1.0, error.retry_after or 1.0), 1)
    if isinstance(error, Queued):
        answer["queued"] = True
    return _json(answer)


class Tools:
    """Answers tool calls; every answer is a JSON object."""

    def __init__(self, memory: Memory, settings: Settings) -> None:
        self._memory = memory
        self._settings = settings

    def call(self, name: object, args: object) -> str:
        """Answer one call.

        Raises:
            HonchoExecError: what `error_answer` turns into an answer.
        """
        kind = _TOOLS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InputError(f"there is no tool {str(name)[:80]!r}; the tools are {', '.join(_TOOLS)}")
        parsed, ignored = _parse(kind, args)
        match parsed:
            case _Profile():
                answer = self._profile(parsed)
            case _Search():
                answer = self._search(parsed)
            case _Reasoning():
                answer = self._reasoning(parsed)
            case _Context():
                answer = self._context(parsed)
            case _Conclude():
                return self._conclude(parsed, ignored)
        return _json(answer | ({"ignored": ignored} if ignored else {}))

    def find(self, query: str, *, peer: str = "user", limit: int = 10) -> list[Hit]:
        """The messages that match `query` best, in every session that `peer` took part in."""
        ref = self._memory.ready()
        target = self._target(ref, peer)
        sessions = self._memory.read(lambda api: api.sessions_of(target))
        asked = clean(query)
        return self._memory.read(lambda api: api.search(asked, sessions=sessions, limit=limit)) if asked else []

    def _profile(self, args: _Profile) -> dict[str, object]:
        ref = self._memory.ready()
        observer, target = self._view(ref, args.peer)
        if args.card:
            facts = tuple(clean(fact) for fact in args.card)
            future = self._memory.write(Card(observer, target or observer, facts))
            self._memory.settled(future)
            return {"result": f"The card was written ({len(facts)} facts).", "card": list(facts)}
        card = self._memory.read(lambda api: api.card(observer, target))
        if not card and target is not None:
            card = self._memory.read(lambda api: api.card(target, None))
        if card:
            return {"result": list(card)}
        return {
            "result": "There are no facts on this card yet.",
            "hint": "This is not an error. Honcho fills a card by itself as it derives facts from many turns, or it is "
            "written with `card`. honcho_search finds what was said, honcho_conclude list=true what was concluded.",
        }

    def _search(self, args: _Search) -> dict[str, object]:
        budget = args.max_tokens * _CHARS_PER_TOKEN
        hits = self.find(args.query, peer=args.peer, limit=max(5, min(20, budget // 150)))
        entries: list[str] = []
        for hit in hits:
            head = f"[{hit.peer} · {hit.created_at[:16].replace('T', ' ')} · {hit.session}] "
            room = budget - sum(len(entry) + 2 for entry in entries) - len(head)
            if room < min(40, len(hit.content)):
                break
            entries.append(head + cut_at_word(hit.content, room))
        return {"result": "\n\n".join(entries) or "Nothing was found for this query."}

    def _reasoning(self, args: _Reasoning) -> dict[str, object]:
        ref = self._memory.ready()
        observer, target = self._view(ref, args.peer)
        level = self._settings.dialectic_reasoning_level
        if self._settings.dialectic_dynamic and args.reasoning_level is not None:
            level = args.reasoning_level
        query = clean(args.query)
        answer = self._memory.chat(lambda api: api.chat(query, observer=observer, target=target, level=level))
        return {"result": answer or "Honcho knows nothing about this yet."}

    def _context(self, args: _Context) -> dict[str, object]:
        ref = self._memory.ready()
        observer, target = self._view(ref, args.peer)
        found = self._memory.read(
            lambda api: api.session_context(ref.session, target=target or observer, observer=observer)
        )
        recent = "\n".join(f"[{message.peer}] {cut_at_word(message.content, 300)}" for message in found.messages[-10:])
        parts = {
            "Summary": found.summary,
            "Representation": found.representation,
            "Card": "\n".join(found.card),
            "Recent messages": recent,
        }
        text = "\n\n".join(f"## {title}\n{part}" for title, part in parts.items() if part)
        return {"result": text or "Nothing is stored for this session yet."}

    def _conclude(self, args: _Conclude, ignored: Sequence[str]) -> str:
        extra: dict[str, object] = {"ignored": list(ignored)} if ignored else {}
        if args.list:
            ref = self._memory.ready()
            observer, target = self._view(ref, args.peer)
            query = clean(args.query) if args.query else None
            found = self._memory.read(lambda api: api.conclusions(observer, target or observer, query=query, limit=20))
            listed = [{"id": one.id, "content": one.content, "created_at": one.created_at} for one in found]
            return _json(
                {"conclusions": listed, **({} if listed else {"result": "There are no conclusions."}), **extra}
            )
        if args.delete_id is not None:
            return _json({"result": self._delete(args.delete_id), **extra})
        return _json({"result": self._write_conclusion(args), **extra})

    def _write_conclusion(self, args: _Conclude) -> str:
        ref = self._memory.ref
        observer, target = self._view(ref, args.peer)
        content = clean(args.conclusion or "")
        if not content:
            raise InputError("`conclusion` holds nothing but recalled memory; say the fact in your own words")
        self._memory.settled(self._memory.write(Conclusion(content, observer, target or observer)))
        return f"The conclusion about {target or observer} is kept: {content}"

    def _delete(self, conclusion_id: str) -> str:
        try:
            self._memory.settled(self._memory.write(Deletion(conclusion_id)))
        except Rejected as error:
            if error.cause != "not_found":
                raise
            raise InputError(f"there is no conclusion with the id {conclusion_id!r}; list=true shows the ids") from None
        return f"The conclusion {conclusion_id} was deleted."

    def _view(self, ref: SessionRef, peer: str) -> tuple[str, str | None]:
        """Who is asked, and about whom (None: about itself)."""
        target = self._target(ref, peer)
        if target == ref.ai_peer:
            return ref.ai_peer, None
        observes_others = self._settings.observes(ai=True)[1]
        return (ref.ai_peer, target) if observes_others else (target, None)

    def _target(self, ref: SessionRef, peer: str) -> str:
        known = {"user": ref.user_peer, "ai": ref.ai_peer, ref.user_peer: ref.user_peer, ref.ai_peer: ref.ai_peer}
        if peer in known:
            return known[peer]
        self._memory.ready()
        peers = self._memory.read(lambda api: api.peers())
        if peer in peers:
            return peer
        shown = ", ".join(name for name in peers if name not in known)[:500]
        raise InputError(
            f"`peer`: there is no peer {peer[:80]!r} here; use 'user', 'ai'" + (f" or one of: {shown}" if shown else "")
        )


def _parse(kind: type[_Arguments], args: object) -> tuple[_Arguments, list[str]]:
    """Validate arguments; None counts as left out. Returns them with the names that the tool does not know."""
    if args is None:
        args = {}
    if not isinstance(args, Mapping):
        raise InputError(f"the arguments of {kind.tool} must be a JSON object, not {type(args).__name__}")
    given = {str(name): value for name, value in args.items() if value is not None}
    try:
        parsed = kind.model_validate(given)
    except ValidationError as error:
        problems = (_problem(dict(detail)) for detail in error.errors(include_url=False))
        raise InputError("; ".join(dict.fromkeys(problems))) from None
    return parsed, [name[:80] for name in given if name not in kind.model_fields]


def _problem(detail: Mapping[str, Any]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f"`{part}`" for part in detail["loc"])
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
    return f"{place}: {what}" if place else what


def _parameters(kind: type[_Arguments]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    return {
        "type": "object",
        "properties": {name: _flat(declared) for name, declared in schema["properties"].items()},
        "required": schema.get("required", []),
    }


def _flat(declared: dict[str, Any]) -> dict[str, Any]:
    """A property's schema without what some model APIs refuse: titles, defaults, null, nesting for null's sake."""
    flat: dict[str, Any] = {}
    for variant in (*declared.get("anyOf", ()), declared):
        if variant.get("type") != "null":
            flat |= {key: value for key, value in variant.items() if key not in {"anyOf", "default", "title"}}
    return flat


def _json(answer: Mapping[str, object]) -> str:
    return json.dumps(answer, ensure_ascii=False)
