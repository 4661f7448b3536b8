from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.errors import InputError
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import HostContext, choice_of, resolve, session_and_key, user_peer
from honcho_exec.settings.names import safe_id

names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=200).filter(str.strip)
# Settings take no lone surrogates.
settable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200).filter(str.strip)


@given(names)
def test_a_safe_id_is_one_that_honcho_takes(raw: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", safe_id(raw))


@given(st.sets(names | st.from_regex(r"[a-z]{1,5}[ .:-]{1,2}[a-z]{1,5}", fullmatch=True), min_size=2, max_size=5))
def test_two_names_never_meet(raws: set[str]) -> None:
    assert len({safe_id(raw) for raw in raws}) == len(raws)


def test_a_name_that_is_safe_already_is_kept() -> None:
    assert safe_id("user_1-a") == "user_1-a"
    with pytest.raises(InputError, match="not empty"):
        safe_id("  ")


@pytest.mark.parametrize(
    ("settings", "context", "peer"),
    [
        ({}, {}, "ada"),
        ({"ai_peer": "ada"}, {}, "ada-fdee430d"),
        ({"peer_name": "Ada L"}, {}, "Ada-L"),
        ({"peer_name": "Ada"}, {"user_id": "77"}, "77"),
        ({"peer_name": "Ada", "pin_user_peer": True}, {"user_id": "77"}, "Ada"),
        ({"user_peer_aliases": {"77": "ada"}}, {"user_id": "77"}, "ada"),
        ({"user_peer_aliases": {"alt": "ada"}}, {"user_id": "77", "user_id_alt": "alt"}, "ada"),
        ({"runtime_peer_prefix": "telegram_"}, {"user_id": "77"}, "telegram_77"),
    ],
)
def test_the_users_peer(settings: dict[str, object], context: dict[str, str], peer: str) -> None:
    assert user_peer(Settings(**settings), HostContext(**context), {"LOGNAME": "ada"}) == peer


def test_a_runtime_user_never_becomes_a_named_one() -> None:
    settings = Settings(peer_name="ada", user_peer_aliases={"1": "bob"})
    for runtime_id in ("ada", "bob"):
        peer = user_peer(settings, HostContext(user_id=runtime_id), {})
        assert re.fullmatch(rf"{runtime_id}-[0-9a-f]{{8}}", peer)


@pytest.mark.parametrize(
    ("settings", "context", "session"),
    [
        ({}, {"session": "mine", "session_title": "t"}, "mine"),
        ({}, {"cwd": "/home/ada/project"}, "project"),
        ({"sessions": {"/home/ada/project": "manual"}}, {"cwd": "/home/ada/project", "session_title": "t"}, "manual"),
        ({}, {"cwd": "/x", "session_title": "My plan!"}, "My-plan"),
        ({}, {"cwd": "/x", "session_title": "My plan!", "session_title_source": "user"}, "My-plan"),
        ({}, {"cwd": "/x", "session_title": "My plan!", "session_title_source": "llm"}, "x"),
        ({}, {"cwd": "/x", "session_title": "My plan!", "session_title_source": "derived"}, "x"),
        ({}, {"cwd": "/x", "gateway_session_key": "telegram:42"}, "telegram-42"),
        ({}, {"gateway_session_key": "agent:main:telegram:dm:42", "session_title": "t"}, "agent-main-telegram-dm-42"),
        ({"sessions": {"/x": "m"}}, {"cwd": "/x", "gateway_session_key": "telegram:42"}, "telegram-42"),
        ({"session_strategy": "per-session"}, {"gateway_session_key": "a:1", "session_id": "run-1"}, "a-1"),
        ({"session_strategy": "per-session"}, {"session_id": "run-1", "session_title": "t"}, "run-1"),
        (
            {"session_strategy": "per-session", "sessions": {"/x": "m"}},
            {"session_id": "run-1", "cwd": "/x"},
            "run-1",
        ),
        ({"session_strategy": "per-session", "sessions": {"/x": "m"}}, {"cwd": "/x", "session_title": "t"}, "m"),
        ({}, {"cwd": "/x", "user_id": "77", "session_title": "agent:main:telegram:dm:333"}, "x"),
        ({"session_strategy": "per-session"}, {"cwd": "/x", "session_id": "20261122_1"}, "20261122_1"),
        ({"session_strategy": "global", "workspace": "w"}, {"cwd": "/x"}, "w"),
        ({"session_peer_prefix": True}, {"cwd": "/x"}, "ada-x"),
        ({}, {"cwd": "/"}, "hermes"),
    ],
)
def test_the_session(settings: dict[str, object], context: dict[str, str], session: str) -> None:
    assert session_and_key(Settings(**settings), HostContext(**context), "ada")[0] == session


def test_the_repository_names_the_session(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    settings = Settings(session_strategy="per-repo")
    assert session_and_key(settings, HostContext(cwd=str(inner)), "ada")[0] == "repo"
    assert session_and_key(settings, HostContext(cwd="/nowhere/else"), "ada")[0] == "else"


runtime_ids = names.map(str.strip) | st.from_regex(r"[+@a-c]{1,3}[.:-][a-c]{1,2}", fullmatch=True)


@given(st.sets(runtime_ids, min_size=2, max_size=5), st.sampled_from(["", "telegram_", "é"]), runtime_ids, runtime_ids)
def test_users_of_a_gateway_never_meet(raws: set[str], prefix: str, named: str, alias: str) -> None:
    settings = Settings(
        peer_name=named, ai_peer=alias, runtime_peer_prefix=prefix, user_peer_aliases={"somebody else": f"{alias}1"}
    )
    peers = {user_peer(settings, HostContext(user_id=raw), {}) for raw in raws}
    assert len(peers) == len(raws)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,512}", peer) for peer in peers)
    known = [user_peer(Settings(peer_name=name), HostContext(), {}) for name in (named, alias, f"{alias}1")]
    assert not peers & set(known)


def test_the_systems_user_is_not_the_assistant() -> None:
    peer = user_peer(Settings(), HostContext(), {"LOGNAME": "hermes"})
    assert re.fullmatch(r"hermes-[0-9a-f]{8}", peer)
    assert user_peer(Settings(peer_name="hermes"), HostContext(), {}) == "hermes"


@given(
    st.fixed_dictionaries(
        {
            "session_strategy": st.sampled_from(["per-directory", "per-session", "per-repo", "global"]),
            "session_peer_prefix": st.booleans(),
            "workspace": settable,
        }
    ),
    st.fixed_dictionaries(
        {
            name: st.just("") | settable
            for name in ("session", "session_id", "session_title", "gateway_session_key", "cwd")
        }
    ),
    settable,
)
def test_every_session_has_a_name_that_honcho_takes(
    settings: dict[str, Any], context: dict[str, str], peer: str
) -> None:
    made = Settings(**settings, sessions={context["cwd"]: context["session_id"]})
    name = session_and_key(made, HostContext(**context), user_peer(Settings(peer_name=peer), HostContext(), {}))[0]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", name)


# Text of few characters, where those that are made alike meet, and the names that such text gets.
near = st.text("ab1:-_. +@é", min_size=1, max_size=6).filter(str.strip)
near |= st.sampled_from(["agent:main:telegram:dm:42", "x" * 120])
keys = near | names | near.map(lambda raw: session_and_key(Settings(), HostContext(gateway_session_key=raw), "ada")[0])


def chat(key: str) -> HostContext:
    return HostContext(gateway_session_key=key, user_id="77", cwd="/x", session_title="t", session_id="run")


@given(st.sets(keys.filter(lambda key: key.strip(": ")), min_size=2, max_size=8))
def test_two_chats_never_share_a_session(raws: set[str]) -> None:
    refs = [resolve(Settings(), chat(key), {}) for key in raws]
    assert len({ref.session for ref in refs}) == len({choice_of(ref).own for ref in refs}) == len(refs)
    final = {ref.session for ref in refs} | {choice_of(ref).own for ref in refs}
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", name) for name in final)
    own_of_others = [choice_of(ref).own for ref in refs]
    assert not any(ref.session == own for ref, own in zip(refs, own_of_others, strict=True) if ref.session != own)


@given(st.sets(near | near.map(safe_id) | names, min_size=2, max_size=8))
def test_two_names_of_a_program_never_meet(raws: set[str]) -> None:
    raws = {raw for raw in raws if raw.strip()}
    assert len({safe_id(raw) for raw in raws}) == len(raws)


@given(near | names, st.sampled_from(["session_title", "cwd", "session_id"]), st.sampled_from(["dm:42", "group:7:8"]))
def test_a_person_never_takes_the_session_of_a_hosts_chat(raw: str, where: str, chat_id: str) -> None:
    settings = Settings(session_strategy="per-session" if where == "session_id" else "per-directory")
    key = f"agent:main:telegram:{chat_id}"
    for name in (raw, key, key.replace(":", "-"), f"{key}!"):
        person = session_and_key(settings, HostContext(**{"cwd": "/x", where: name}), "ada")
        assert person != session_and_key(settings, HostContext(gateway_session_key=key), "ada")


@pytest.mark.slow
def test_no_two_of_240_000_chats_of_a_gateway_share_a_session() -> None:
    """Every short key of some characters, and keys as platforms make them."""
    chats = {"".join(key) for length in range(1, 7) for key in product("a1:-_.+", repeat=length)}
    for kind in ("telegram:group:-100", "signal:dm:+49", "email:dm:a.b@c", "matrix:dm:!r:s.org", "discord:dm:"):
        chats |= {f"agent:main:{kind}{number}" for number in range(0, 10**9, 50_000)}
    chats = {key for key in chats if key.strip(":")}
    assert len(chats) > 230_000
    assert len({session_and_key(Settings(), chat(key), "77") for key in chats}) == len(chats)


@given(st.sets(near, min_size=2, max_size=6), st.booleans())
def test_an_id_that_looks_like_another_users_peer_is_another_peer(raws: set[str], prefixed: bool) -> None:
    settings = Settings(runtime_peer_prefix="tg:" if prefixed else "")
    raws = {raw for raw in raws if raw.strip()}
    peers = {raw: user_peer(settings, HostContext(user_id=raw), {}) for raw in raws}
    assert len(set(peers.values())) == len(peers)
    for peer in peers.values():
        assert user_peer(Settings(), HostContext(user_id=peer), {}) not in peers.values() or peer in raws


def test_a_runtime_user_never_becomes_the_systems_user() -> None:
    assert user_peer(Settings(), HostContext(user_id="ada"), {"LOGNAME": "ada"}) != "ada"
    assert user_peer(Settings(), HostContext(user_id=" 77"), {}) != user_peer(Settings(), HostContext(user_id="77"), {})


@given(names, names, st.sampled_from(["session_title", "gateway_session_key", "session_id", "cwd"]))
def test_long_names_are_cut_and_stay_apart(first: str, second: str, where: str) -> None:
    first, second = first.replace("/", "_"), second.replace("/", "_")
    context = [HostContext(**{"cwd": "/x", where: f"chat:{'x' * 120}:{name}"}) for name in (first, second)]
    settings = Settings(session_strategy="per-session" if where == "session_id" else "per-directory")
    found = [session_and_key(settings, one, "ada") for one in context]
    assert all(len(name) <= 100 for name in found)
    assert (found[0] == found[1]) == (first == second)


def test_a_conversation_is_named_as_a_whole() -> None:
    ref = resolve(Settings(workspace="my space", ai_peer="the bot"), HostContext(session="s"), {"LOGNAME": "ada"})
    assert (ref.session, ref.user_peer) == ("s", "ada")
    assert re.fullmatch(r"my-space-[0-9a-f]{8}", ref.workspace)
    assert ref.ai_peer == "the-bot"


@pytest.mark.parametrize("kind", ["dm", "group", "channel", "thread", "forum", "supergroup", "room"])
def test_no_title_names_the_session_of_a_gateways_chat(kind: str) -> None:
    key = f"agent:main:matrix:{kind}:7"
    chat = HostContext(gateway_session_key=key, user_id="7")
    titled = HostContext(session_title=key)
    assert session_and_key(Settings(), titled, "ada") != session_and_key(Settings(), chat, "7")
