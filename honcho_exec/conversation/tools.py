"""Answer the five tools."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from honcho_exec.conversation.conversation import Conversation
from honcho_exec.conversation.tool_answers import to_json
from honcho_exec.conversation.tool_arguments import (
    TOOLS,
    Arguments,
    Conclude,
    Context,
    Profile,
    Reasoning,
    Search,
    parse,
)
from honcho_exec.errors import InputError, Rejected
from honcho_exec.model import Card, Conclusion, Deletion, Found, SessionRef
from honcho_exec.model import Context as PeerContext
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import observer_of
from honcho_exec.text.budget import CHARS_PER_TOKEN, Section, compose
from honcho_exec.text.cleaning import cut_at_word, storable
from honcho_exec.text.neutralize import without_thinking
from honcho_exec.text.validation import require_conclusion

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["Tools"]

# The limits of honcho_context; those of honcho_search are in the call.
_CONTEXT_TOKENS = 2_000
_RECENT_MESSAGES = 10
_RECENT_CHARS = 300


class Tools:
    """Answers tool calls; every answer is a JSON object.

    Args:
        asking: entered around a request that a language model answers.
        shared: whether other people talk to the same assistant. Then nothing about these people is shown or deleted.
            Of the assistant, only what belongs to the present session is shown, since it answered the others too, and
            a card of it that is written here is only this user's.
    """

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        asking: Callable[[SessionRef], AbstractContextManager[None]] = lambda _: nullcontext(),
        *,
        shared: bool = False,
    ) -> None:
        self._conversation = conversation
        self._reader = conversation.reader
        self._settings = settings
        self._asking = asking
        self._shared = shared

    def call(self, name: object, args: object) -> str:
        """Answer one call.

        Raises:
            HonchoExecError: see `error_answer`.
        """
        kind = TOOLS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InputError(f"there is no tool {str(name)[:80]!r}; the tools are {', '.join(TOOLS)}")
        parsed, ignored = parse(kind, args)
        try:
            answer = self._answer(parsed)
        except Rejected as error:
            deleted = self._conversation.deleted()
            if error.cause != "not_found" or deleted is None:
                raise
            raise deleted from error
        if ignored:
            answer["ignored"] = ignored
        if (deleted := self._conversation.deleted()) is not None:
            answer["note"] = str(deleted)
        return to_json(answer)

    def _answer(self, parsed: Arguments) -> dict[str, object]:
        match parsed:
            case Profile():
                return self._profile(parsed)
            case Search():
                return self._search(parsed)
            case Reasoning():
                return self._reasoning(parsed)
            case Context():
                return self._context(parsed)
            case Conclude():
                return self._conclude(parsed)
        raise AssertionError(f"no tool takes {type(parsed).__name__}")

    def find(self, query: str, *, peer: str = "user", limit: int = 10) -> Found:
        """Find the messages that match `query` best, in every session that the user and `peer` are members of."""
        ref = self._conversation.ready()
        target = self._target(ref, peer)
        members = [ref.user_peer] if self._shared else list(dict.fromkeys((target, ref.user_peer)))
        query = storable(query, mask=self._settings.redact)
        if not query:
            return Found(())
        return self._reader.read(lambda api: api.reads.search(query, members=members, limit=limit))

    def _profile(self, args: Profile) -> dict[str, object]:
        facts = tuple(filter(None, (storable(fact, mask=self._settings.redact) for fact in args.card or ())))
        if args.card and not facts:
            raise InputError("`card`: holds no fact, only blanks or recalled memory; say the facts in your own words")
        ref = self._conversation.ready()
        observer, target = self._card_view(ref, args.peer)
        if facts:
            future = self._conversation.write(Card(observer, target or observer, facts))
            self._conversation.wait_for_write(future)
            return {"result": f"The card was written ({len(facts)} facts).", "card": list(facts)}
        card = self._reader.read(lambda api: api.reads.card(observer, target))
        if not card and target is not None:
            card = self._reader.read(lambda api: api.reads.card(target, None))
        if card:
            return {"result": list(card)}
        return {
            "result": "There are no facts on this card yet.",
            "hint": f"This is not an error: {self._why_empty(target or observer)} It can be written with `card`. "
            "honcho_search finds what was said, honcho_conclude list=true what was concluded.",
        }

    def _why_empty(self, peer: str) -> str:
        """Return why a peer's card is empty, as far as settings and server tell."""
        if self._settings.backend == "embedded":
            return "without a Honcho server nobody writes cards but you."
        ref = self._conversation.ref
        if peer in {ref.user_peer, ref.ai_peer} and not self._settings.observes(ai=peer == ref.ai_peer)[0]:
            return f"the settings (`observationMode`, `observation`) say that {peer} is not observed."
        pending = self._reader.read(lambda api: api.reads.deriving())
        if pending:
            return f"Honcho has {pending} messages or tasks yet to derive facts from; ask again later."
        return "Honcho has derived nothing yet that belongs on it; it fills a card automatically over many turns."

    def _search(self, args: Search) -> dict[str, object]:
        budget = args.max_tokens * CHARS_PER_TOKEN
        found = self.find(self._required(args.query, "query"), peer=args.peer, limit=max(5, min(20, budget // 150)))
        entries: list[str] = []
        for hit in found.hits:
            head = f"[{hit.peer} · {hit.created_at[:16].replace('T', ' ')} · {hit.session}] "
            room = budget - sum(len(entry) + 2 for entry in entries) - len(head)
            if room < min(40, len(hit.content)):
                break
            entries.append(head + cut_at_word(hit.content, room))
        answer: dict[str, object] = {"result": "\n\n".join(entries) or "Nothing was found for this query."}
        return answer | ({"left_out": found.left_out} if found.left_out else {})

    def _reasoning(self, args: Reasoning) -> dict[str, object]:
        query = self._required(args.query, "query")
        ref = self._conversation.ready()
        observer, target = self._view(ref, args.peer)
        level = self._settings.dialectic_reasoning_level
        if self._settings.dialectic_dynamic and args.reasoning_level is not None:
            level = args.reasoning_level
        session = self._session_limit(ref, target or observer)
        with self._asking(self._conversation.ref):
            answer = self._reader.chat(
                lambda api: api.reads.chat(query, observer=observer, target=target, level=level, session=session)
            )
        return {"result": without_thinking(answer) or "Honcho knows nothing about this yet."}

    def _context(self, args: Context) -> dict[str, object]:
        ref = self._conversation.ready()
        observer, target = self._view(ref, args.peer)
        about = None if self._session_limit(ref, target or observer) else target or observer
        # The SDK takes an observer only with a peer to observe.
        viewer = observer if about else None
        session = of_peer = PeerContext()
        try:
            session = of_peer = self._reader.read(
                lambda api: api.reads.session_context(ref.session, target=about, observer=viewer)
            )
            if not about:
                of_peer = self._reader.read(lambda api: api.reads.self_context(ref.ai_peer, ref.session, ref.user_peer))
        except Rejected as error:
            if error.cause != "not_found" or self._conversation.deleted() is None:
                raise
            session = of_peer = PeerContext()
            if about:
                of_peer = self._reader.read(lambda api: api.reads.peer_context(observer, target))
        recent = [
            f"[{message.peer}] {cut_at_word(message.content, _RECENT_CHARS)}"
            for message in session.messages[-_RECENT_MESSAGES:]
        ]
        text = compose(
            [
                Section("Summary", without_thinking(session.summary), rank=1),
                Section("Representation", of_peer.representation, rank=3),
                Section("Card", "\n".join(of_peer.card)),
                Section("Recent messages", "\n".join(recent), rank=2),
            ],
            _CONTEXT_TOKENS * CHARS_PER_TOKEN,
        )
        return {"result": text or "Nothing is stored for this session yet."}

    def _conclude(self, args: Conclude) -> dict[str, object]:
        if args.list:
            query = None if args.query is None else self._required(args.query, "query")
            ref = self._conversation.ready()
            observer, target = self._view(ref, args.peer)
            session = self._session_limit(ref, target or observer)
            found = self._reader.read(
                lambda api: api.reads.conclusions(observer, target or observer, query=query, limit=20, session=session)
            )
            listed = [
                {"id": conclusion.id, "content": conclusion.content, "created_at": conclusion.created_at}
                for conclusion in found
            ]
            return {"conclusions": listed, **({} if listed else {"result": "There are no conclusions."})}
        if args.delete_id is not None:
            return {"result": self._delete(args.delete_id)}
        return {"result": self._write_conclusion(args)}

    def _write_conclusion(self, args: Conclude) -> str:
        content = require_conclusion(self._required(args.conclusion or "", "conclusion"), "conclusion")
        ref = self._conversation.ref
        observer, target = self._view(ref, args.peer)
        self._conversation.wait_for_write(self._conversation.write(Conclusion(content, observer, target or observer)))
        return f"The conclusion about {target or observer} is kept: {content}"

    def _delete(self, conclusion_id: str) -> str:
        missing = InputError(f"there is no conclusion with the id {conclusion_id!r}; list=true shows the ids")
        if self._shared and not self._is_listed(conclusion_id):
            raise missing
        try:
            self._conversation.wait_for_write(self._conversation.write(Deletion(conclusion_id)))
        except Rejected as error:
            if error.cause != "not_found":
                raise
            raise missing from None
        return f"The conclusion {conclusion_id} was deleted."

    def _is_listed(self, conclusion_id: str) -> bool:
        """Return whether a listing about the user or the assistant can show this conclusion."""
        ref = self._conversation.ready()

        def listed(api: HonchoApi) -> bool:
            return any(
                api.has_conclusion(
                    conclusion_id, observer_of(self._settings, ref, peer), peer, session=self._session_limit(ref, peer)
                )
                for peer in (ref.user_peer, ref.ai_peer)
            )

        return self._reader.read(listed)

    def _required(self, text: str, argument: str) -> str:
        """Return an argument's text as it is stored and sent; it must not be empty then."""
        if stored := storable(text, mask=self._settings.redact):
            return stored
        what = "holds nothing but recalled memory; say it in your own words" if text.strip() else "must not be empty"
        raise InputError(f"`{argument}`: {what}")

    def _view(self, ref: SessionRef, peer: str) -> tuple[str, str | None]:
        """Return the observer, and the peer it is asked about (None: itself)."""
        target = self._target(ref, peer)
        observer = observer_of(self._settings, ref, target)
        return observer, None if observer == target else target

    def _card_view(self, ref: SessionRef, peer: str) -> tuple[str, str | None]:
        """Return the owner of a card, and the peer it is about (None: the owner); a card belongs to no session."""
        observer, target = self._view(ref, peer)
        return (ref.user_peer, ref.ai_peer) if self._session_limit(ref, target or observer) else (observer, target)

    def _session_limit(self, ref: SessionRef, about: str) -> str | None:
        """Return the only session from which something about a peer is shown; None if from all."""
        return ref.session if self._shared and about == ref.ai_peer else None

    def _target(self, ref: SessionRef, peer: str) -> str:
        known = {"user": ref.user_peer, "ai": ref.ai_peer, ref.user_peer: ref.user_peer, ref.ai_peer: ref.ai_peer}
        if peer in known:
            return known[peer]
        if self._shared:
            raise InputError(
                f"`peer`: use 'user' or 'ai', not {peer[:80]!r}; others talk to this assistant as well, and what is"
                " known of them is shown to no other user"
            )
        self._conversation.ready()
        exists, peers = self._reader.read(lambda api: api.reads.peers(peer))
        if exists:
            return peer
        shown = ", ".join(name for name in peers if name not in known)[:500]
        raise InputError(
            f"`peer`: there is no peer {peer[:80]!r} here; use 'user', 'ai'" + (f" or one of: {shown}" if shown else "")
        )
