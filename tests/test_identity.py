from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.errors import InputError
from honcho_exec.identity import HostContext, resolve, safe_id, session_name, user_peer
from honcho_exec.settings import Settings

names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=200).filter(str.strip)


@given(names)
def test_a_safe_id_is_one_that_honcho_takes(raw: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", safe_id(raw))


@given(st.sets(names | st.from_regex(r"[a-z]{1,5}[ .:-]{1,2}[a-z]{1,5}", fullmatch=True), min_size=2, max_size=5))
def test_two_names_never_meet(raws: set[str]) -> None:
    assert len({safe_id(raw) for raw in raws}) == len(raws)


def test_a_name_that_is_safe_already_is_kept() -> None:
    assert safe_id("user_1-a") == "user_1-a"
    assert safe_id("user_1-a", taken={"user_1-a"}) != "user_1-a"
    with pytest.raises(InputError, match="not empty"):
        safe_id("  ")


@pytest.mark.parametrize(
    ("settings", "context", "peer"),
    [
        ({}, {}, "ada"),
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
        ({}, {"cwd": "/x", "gateway_session_key": "telegram:42"}, "telegram-42"),
        ({"session_strategy": "per-session"}, {"cwd": "/x", "session_id": "20261122_1"}, "20261122_1"),
        ({"session_strategy": "global", "workspace": "w"}, {"cwd": "/x"}, "w"),
        ({"session_peer_prefix": True}, {"cwd": "/x"}, "ada-x"),
        ({}, {"cwd": "/"}, "hermes"),
    ],
)
def test_the_session(settings: dict[str, object], context: dict[str, str], session: str) -> None:
    assert session_name(Settings(**settings), HostContext(**context), "ada") == session


def test_the_repository_names_the_session(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    settings = Settings(session_strategy="per-repo")
    assert session_name(settings, HostContext(cwd=str(inner)), "ada") == "repo"
    assert session_name(settings, HostContext(cwd="/nowhere/else"), "ada") == "else"


@given(names, names)
def test_long_names_are_cut_and_stay_apart(first: str, second: str) -> None:
    context = [HostContext(gateway_session_key=f"chat:{'x' * 120}:{name}") for name in (first, second)]
    found = [session_name(Settings(), one, "ada") for one in context]
    assert all(len(name) <= 100 for name in found)
    assert (found[0] == found[1]) == (first == second)


def test_a_conversation_is_named_as_a_whole() -> None:
    ref = resolve(Settings(workspace="my space", ai_peer="the bot"), HostContext(session="s"), {"LOGNAME": "ada"})
    assert (ref.session, ref.user_peer) == ("s", "ada")
    assert re.fullmatch(r"my-space-[0-9a-f]{8}", ref.workspace)
    assert re.fullmatch(r"the-bot-[0-9a-f]{8}", ref.ai_peer)
