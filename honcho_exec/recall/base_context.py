"""The base context: what is known of the user and the session without asking a language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from honcho_exec.errors import Rejected
from honcho_exec.model import Context, SessionRef
from honcho_exec.text.budget import Section
from honcho_exec.text.cleaning import clean, cut_at_word
from honcho_exec.text.neutralize import defuse, without_thinking

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["DIALECTIC_RANK", "fetch_base_context", "presentable"]

DIALECTIC_RANK = 1
"""Where an answer of the dialectic stands when not everything fits: behind the user's card."""

# Room for Honcho's longest summary, of 4,000 tokens, and not for every message of the session.
_SUMMARY_TOKENS = 10_000

# What a server looks for; it travels in a URL, and embedding models take no more.
_MAX_QUERY = 2_000


def fetch_base_context(api: HonchoApi, ref: SessionRef, query: str, *, observer: str, shared: bool) -> list[Section]:
    """The session's summary, the user's representation and card as `observer` has them, and the assistant's own.

    Where several people share the assistant, what it knows of itself is that of this session: it answered the others,
    and may have said what they told it.

    Raises:
        RequestError: a request failed.
    """
    target = ref.user_peer if observer != ref.user_peer else None
    asked = cut_at_word(query, _MAX_QUERY)
    summary = without_thinking(_known(lambda: api.session_context(ref.session, tokens=_SUMMARY_TOKENS)).summary)
    user = _known(lambda: api.peer_context(observer, target, query=asked))
    itself = (
        partial(api.self_context, ref.ai_peer, ref.session, ref.user_peer)
        if shared
        else partial(api.peer_context, ref.ai_peer, None)
    )
    assistant = _known(itself)
    return [
        Section("Session summary", presentable(summary), rank=3),
        Section("User representation", presentable(user.representation), rank=2),
        Section("User card", presentable("\n".join(user.card)), rank=0),
        Section("Assistant's own representation", presentable(assistant.representation), rank=4),
        Section("Assistant's own card", presentable("\n".join(assistant.card)), rank=5),
    ]


def presentable(text: str) -> str:
    """Recalled text as it may stand before a turn: without leaked recall, and without what passes for structure."""
    return defuse(clean(text))


def _known(request: Callable[[], Context]) -> Context:
    """A context; empty for a peer that Honcho does not know yet, and for a session that was deleted."""
    try:
        return request()
    except Rejected as error:
        if error.cause != "not_found":
            raise
        return Context()
