"""What tests of recall share: a Honcho whose language model answers by a script, and turns as a host makes them."""

from __future__ import annotations

import json
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from support.faulty import Fault, FaultyServer, status

if TYPE_CHECKING:
    from honcho_exec import HonchoProvider

__all__ = ["answering", "at_rest", "chats", "levels", "script", "turn", "under_way"]


def answering(content: str | None) -> Fault:
    """A chat's answer; None is one that holds nothing."""
    return status(200, body=json.dumps({"content": content}).encode())


def script(server: FaultyServer, *answers: str | None) -> None:
    """Let the language model answer one after the other, and the last one for ever."""
    for answer in answers[:-1]:
        server.rule(match=("POST", "/chat$"), fault=answering(answer), times=1)
    server.rule(match=("POST", "/chat$"), fault=answering(answers[-1]))


def chats(server: FaultyServer) -> list[str]:
    """The questions that the language model was asked, oldest first."""
    return [seen.body_json["query"] for seen in server.requests if seen.is_for("POST", "/chat$")]


def levels(server: FaultyServer) -> list[str]:
    """At which levels it was asked."""
    return [seen.body_json["reasoning_level"] for seen in server.requests if seen.is_for("POST", "/chat$")]


def under_way(provider: HonchoProvider) -> list[Future[Any]]:
    """What is being recalled for the present segment of the conversation, or was last."""
    recall = provider._lifecycle.components and provider._lifecycle.components.recall
    assert recall is not None
    segment = recall._segment
    slots = (segment.base, segment.dialectic) if segment is not None else ()
    return [slot._future for slot in slots if slot._future is not None]


def at_rest(provider: HonchoProvider) -> None:
    """Wait until nothing is being recalled."""
    assert not wait(under_way(provider), 20).not_done


def turn(provider: HonchoProvider, query: str) -> str:
    """One turn as the host makes it; returns what was put before it."""
    text = provider.prefetch(query)
    provider.sync_turn(query, "I see.")
    provider.queue_prefetch(query)
    at_rest(provider)
    return text
