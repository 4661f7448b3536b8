"""Fetch the base context: what Honcho knows of user and session without a language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from honcho_exec.errors import Rejected
from honcho_exec.model import Context, SessionRef
from honcho_exec.text.budget import Section
from honcho_exec.text.cleaning import clean, cut_at_word
from honcho_exec.text.neutralize import neutralize, without_thinking

if TYPE_CHECKING:
    # The SDK takes long to import; only the lane's first job does.
    from honcho_exec.client.api import HonchoApi

__all__ = ["DIALECTIC_RANK", "fetch_base_context", "presentable"]

DIALECTIC_RANK = 1
"""The rank of a dialectic answer if not everything fits: after the user's card."""

# Room for Honcho's longest summary, of 4,000 tokens, and not for every message of the session.
_SUMMARY_TOKENS = 10_000

# The query travels in a URL, and embedding models take no more.
_MAX_QUERY_CHARS = 2_000


def fetch_base_context(api: HonchoApi, ref: SessionRef, query: str, *, observer: str, shared: bool) -> list[Section]:
    """Return the session's summary, the user's representation and card as `observer` has them, and the assistant's own.

    If several people share the assistant, its own representation is that of this session: it answered the others, and
    may have repeated what they said.

    Raises:
        RequestError: a request failed.
    """
    target = ref.user_peer if observer != ref.user_peer else None
    query = cut_at_word(query, _MAX_QUERY_CHARS)
    summary = without_thinking(_known(lambda: api.reads.session_context(ref.session, tokens=_SUMMARY_TOKENS)).summary)
    user = _known(lambda: api.reads.peer_context(observer, target, query=query))
    own_context = (
        partial(api.reads.self_context, ref.ai_peer, ref.session, ref.user_peer)
        if shared
        else partial(api.reads.peer_context, ref.ai_peer, None)
    )
    assistant = _known(own_context)
    return [
        Section("Session summary", presentable(summary), rank=3),
        Section("User representation", presentable(user.representation), rank=2),
        Section("User card", presentable("\n".join(user.card)), rank=0),
        Section("Assistant's own representation", presentable(assistant.representation), rank=4),
        Section("Assistant's own card", presentable("\n".join(assistant.card)), rank=5),
    ]


def presentable(text: str) -> str:
    """Return recalled text without leaked recall, and without marks that look like structure."""
    return neutralize(clean(text))


def _known(request: Callable[[], Context]) -> Context:
    """Return a context; empty for an unknown peer or a deleted session."""
    try:
        return request()
    except Rejected as error:
        if error.cause != "not_found":
            raise
        return Context()
