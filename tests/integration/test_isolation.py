"""Two profiles, two users of a gateway, two workspaces in one process: whatever they do in turn, nothing is crossed.

Everything that somebody says holds a word of their own, so that one in the wrong place is seen wherever it is.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.faulty import FaultyServer, status

from honcho_exec import HonchoProvider
from honcho_exec.clock import SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import InputError


@dataclass
class Somebody:
    """A person in front of a provider of their own."""

    word: str
    profile: str
    workspace: str
    user: str
    chat: str
    provider: HonchoProvider = field(init=False)
    said: int = 0

    def begin(self, root: Path, url: str) -> None:
        home = root if self.profile == "default" else root / "profiles" / self.profile
        environ = {
            "HOME": str(root / "home"),
            "HERMES_HOME": str(home),
            "HONCHO_BASE_URL": url,
            "HONCHO_WORKSPACE": self.workspace,
            "HONCHO_FIRST_TURN_BASE_WAIT": "20",
            "HONCHO_FIRST_TURN_DIALECTIC_WAIT": "20",
            "HONCHO_RETRY_ATTEMPTS": "1",
            "HONCHO_SYNC_JOIN_TIMEOUT": "1",
            "HONCHO_BREAKER_COOLDOWN": "0.5",
        }
        self.provider = HonchoProvider(environ={name: value for name, value in environ.items() if value})
        self.provider.initialize(
            "run-1", platform="telegram", user_id=self.user, gateway_session_key=self.chat, agent_identity=self.profile
        )

    def text(self) -> str:
        self.said += 1
        return f"The {self.word} is fact number {self.said} that was told."


def people() -> list[Somebody]:
    return [
        Somebody("aardvark", "default", "", "77", "telegram:dm:77"),
        Somebody("bandicoot", "default", "", "78", "telegram:dm:78"),
        # The same user and chat, in another profile and in another workspace.
        Somebody("capybara", "coder", "", "77", "telegram:dm:77"),
        Somebody("dugong", "default", "elsewhere", "77", "telegram:dm:77"),
    ]


WORDS = {one.word for one in people()}
ASKED = "Which fact was told, and of which number?"


def turn(one: Somebody) -> str:
    text = one.provider.prefetch(ASKED)
    one.provider.sync_turn(one.text(), f"I see: {one.text()}")
    one.provider.queue_prefetch(ASKED)
    return text


def tool(name: str, **args: object) -> Callable[[Somebody], str]:
    return lambda one: one.provider.handle_tool_call(name, args)


def conclude(one: Somebody) -> str:
    return one.provider.handle_tool_call("honcho_conclude", {"conclusion": one.text()})


def card(one: Somebody) -> str:
    return one.provider.handle_tool_call("honcho_profile", {"card": [one.text()]})


def go_on(one: Somebody) -> str:
    one.provider.on_session_end([])
    one.provider.on_session_switch(f"run-{one.said}", reset=True)
    return ""


def mirror(one: Somebody) -> str:
    one.provider.on_memory_write("add", "user", one.text())
    one.provider.on_delegation("find out", one.text(), child_session_id=f"{one.word}-{one.said}")
    return repr(one.provider) + json.dumps(one.provider.status().to_dict())


def about_the_others(one: Somebody) -> str:
    """What the tools tell of other people, and of the assistant that talks to them as well."""
    calls = [
        ("honcho_search", {"query": ASKED}),
        ("honcho_reasoning", {"query": ASKED}),
        ("honcho_context", {}),
        ("honcho_profile", {}),
        ("honcho_conclude", {"list": True}),
        ("honcho_conclude", {"list": True, "query": ASKED}),
    ]
    told = [
        one.provider.handle_tool_call(tool, {**arguments, "peer": peer})
        for peer in ("ai", "77", "78")
        for tool, arguments in calls
    ]
    return " ".join(told)


ACTS = {
    "turn": turn,
    "ask about the others": about_the_others,
    "conclude about the assistant": lambda one: one.provider.handle_tool_call(
        "honcho_conclude", {"conclusion": one.text(), "peer": "ai"}
    ),
    "conclude": conclude,
    "card": card,
    "card of the assistant": lambda one: one.provider.handle_tool_call(
        "honcho_profile", {"card": [one.text()], "peer": "ai"}
    ),
    "go on": go_on,
    "mirror": mirror,
    "search": tool("honcho_search", query=ASKED),
    "reason": tool("honcho_reasoning", query=ASKED),
    "context": tool("honcho_context"),
    "profile": tool("honcho_profile"),
    "conclusions": tool("honcho_conclude", list=True),
    "find conclusions": tool("honcho_conclude", list=True, query=ASKED),
}
acts = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["turn", "turn", *ACTS])) | st.sampled_from(["outage", "healing"]),
    min_size=8,
    max_size=24,
)
# An example takes long, and shrinking one many of them.
slow = settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def of_others(text: str, one: Somebody) -> set[str]:
    return {word for word in WORDS - {one.word} if word in text}


def check_outbox(everybody: list[Somebody]) -> None:
    """Each row is on its way to the workspace, session and peers of whoever said it."""
    for one in everybody:
        assert one.provider._conversation is not None
        ref = one.provider._conversation.ref
        for row in one.provider._conversation.outbox.inspection.rows():
            (speaker,) = [other for other in everybody if other.word in json.dumps(str(row.write))]
            assert speaker.provider._conversation is not None
            assert row.ref == speaker.provider._conversation.ref
            assert row.ref.workspace == ref.workspace


def check_files(folder: Path, words: set[str]) -> None:
    """No file below the folder holds another word."""
    for path in folder.rglob("*"):
        if path.is_file():
            found = {word for word in WORDS if word.encode() in path.read_bytes()}
            assert found <= words, path


def check_server(server: FaultyServer, everybody: list[Somebody]) -> None:
    """What was sent went to the workspace of whoever said it, and to their session as them or to them."""
    workspaces = {"aardvark": "hermes", "bandicoot": "hermes", "capybara": "hermes_coder", "dugong": "elsewhere"}
    for seen in server.requests:
        body = f"{seen.query} {json.dumps(seen.body_json)}"
        for word in {word for word in WORDS if word in body}:
            (one,) = [somebody for somebody in everybody if somebody.word == word]
            assert re.search(rf"/workspaces/{workspaces[word]}/", seen.path), (word, seen.path)
            if "/sessions/" in seen.path:
                assert f"/sessions/{one.chat.replace(':', '-')}/" in seen.path, (word, seen.path)
            for message in (seen.body_json or {}).get("messages", ()):
                assert message["peer_id"] in {one.user, "hermes", "hermes_coder"}


@slow
@given(acts)
def test_nothing_is_crossed_on_one_server(caplog: pytest.LogCaptureFixture, acts: list[tuple[int, str] | str]) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        root = Path(temporary)
        honcho = EmbeddedHoncho(root / "server" / "memory.db")
        stack.callback(honcho.close)
        server = stack.enter_context(FaultyServer(honcho.app))
        everybody = interleave(root / "hermes", acts, caplog, stack, server)
        check_server(server, everybody)
        check_files(root / "hermes" / "profiles", {"capybara"})


@slow
@given(acts)
def test_nothing_is_crossed_in_the_embedded_honcho(
    caplog: pytest.LogCaptureFixture, acts: list[tuple[int, str] | str]
) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        root = Path(temporary)
        interleave(root, acts, caplog, stack)
        check_files(root / "honcho_exec", WORDS - {"capybara"})
        check_files(root / "profiles" / "coder", {"capybara"})


def test_a_user_of_a_gateway_is_told_nothing_of_the_others_and_changes_nothing_of_theirs(tmp_path: Path) -> None:
    ada, eve = people()[:2]
    with ExitStack() as stack:
        for one in (ada, eve):
            one.begin(tmp_path, "")
            stack.callback(one.provider.shutdown)
            for act in ("turn", "conclude", "conclude about the assistant", "card", "card of the assistant"):
                ACTS[act](one)
            assert one.provider.flush(20) == 0
        told = about_the_others(eve)
        assert of_others(told, eve) == set()
        assert of_others(eve.provider.prefetch(ASKED), eve) == set()
        assert ada.word in ada.provider.handle_tool_call("honcho_profile", {"peer": "ai"})
        assert eve.word in told
        refused = json.loads(eve.provider.handle_tool_call("honcho_profile", {"peer": ada.user, "card": ["hacked"]}))
        assert (refused["cause"], refused["retryable"]) == ("argument", False)
        assert "use 'user' or 'ai'" in refused["error"]
        assert "hacked" not in ada.provider.handle_tool_call("honcho_profile", {})
        with pytest.raises(InputError):
            eve.provider.search("fact", peer=ada.user)


@pytest.mark.parametrize("peer", ["user", "ai"])
def test_a_user_of_a_gateway_deletes_no_conclusion_of_another_user(
    server: FaultyServer, tmp_path: Path, peer: str
) -> None:
    ada, eve = people()[:2]
    with ExitStack() as stack:
        for one in (ada, eve):
            one.begin(tmp_path, server.url)
            stack.callback(one.provider.shutdown)
        ada.provider.handle_tool_call("honcho_conclude", {"conclusion": ada.text(), "peer": peer})

        def listed() -> list[dict[str, str]]:
            answer = ada.provider.handle_tool_call("honcho_conclude", {"list": True, "peer": peer})
            return list(json.loads(answer)["conclusions"])

        (kept,) = listed()
        answer = json.loads(eve.provider.handle_tool_call("honcho_conclude", {"delete_id": kept["id"]}))
        assert (answer["cause"], answer["retryable"]) == ("argument", False)
        assert listed() == [kept]
        assert "error" not in json.loads(ada.provider.handle_tool_call("honcho_conclude", {"delete_id": kept["id"]}))
        assert listed() == []


@dataclass(frozen=True)
class Stated:
    """What a gateway says of a conversation."""

    key: str = ""
    user: str = ""
    title: str = ""
    source: str = "user"

    def begin(self, root: Path, url: str, stack: ExitStack) -> HonchoProvider:
        environ = {"HOME": str(root), "LOGNAME": "operator", "HONCHO_FIRST_TURN_BASE_WAIT": "20"}
        environ |= {"HONCHO_BASE_URL": url} if url else {}
        provider = HonchoProvider(environ=environ, home=root / "state")
        stack.callback(provider.shutdown)
        provider.initialize(
            "run-1",
            gateway_session_key=self.key,
            user_id=self.user,
            session_title=self.title,
            session_title_source=self.source,
            cwd="/srv/notes",
        )
        return provider


CHAT = "agent:main:telegram:dm:{}"
SECRET = "The vault of the platypus opens at seven."
MEETING = {
    "a title that is another chat's key": (
        Stated(CHAT.format(333), "333"),
        Stated(CHAT.format(42), "42", title=CHAT.format(333)),
    ),
    "a title that is another chat's session": (
        Stated(CHAT.format(333), "333"),
        Stated(CHAT.format(42), "42", title="agent-main-telegram-dm-333", source=""),
    ),
    "titles": (Stated(CHAT.format(1), "1", title="notes"), Stated(CHAT.format(2), "2", title="notes!")),
    "titles without chats": (Stated(user="1", title="notes"), Stated(user="2", title="notes!")),
    "the same title and directory": (Stated(user="1", title="notes"), Stated(user="2", title="notes")),
    "keys": (Stated("notes", "1"), Stated("notes!", "2")),
    "keys of addresses": (Stated("anna.b@victim.com", "1"), Stated("anna@b-victim.com", "2")),
    "keys and ids of addresses": (
        Stated("a:dm:anna.b@victim.com", "anna.b@victim.com"),
        Stated("a:dm:anna@b-victim.com", "anna@b-victim.com"),
    ),
    "ids in one directory": (Stated(user="anna+x@"), Stated(user="anna-x@")),
    "ids that differ in blanks": (Stated("a:1", "77"), Stated("a:2", "77 ")),
    "a person's own directory": (Stated(), Stated("notes", "2")),
    "a person's own title": (Stated(title=CHAT.format(2)), Stated(CHAT.format(2), "2")),
    "the system's user": (Stated(), Stated("a:2", "operator")),
}
meeting = pytest.mark.parametrize(("victim", "attacker"), MEETING.values(), ids=MEETING.keys())


def check_apart(victim: HonchoProvider, attacker: HonchoProvider) -> None:
    """Nothing that the victim says, concludes or writes down can be read by the attacker, whoever came first."""
    victim.prefetch(SECRET)
    victim.sync_turn(SECRET, f"I keep it: {SECRET}").result(20)
    for tool, arguments in (("honcho_conclude", {"conclusion": SECRET}), ("honcho_profile", {"card": [SECRET]})):
        assert "error" not in json.loads(victim.handle_tool_call(tool, arguments))
    told = [attacker.prefetch(ASKED)]
    for peer in ("user", "ai"):
        for tool, arguments in (
            ("honcho_search", {"query": SECRET}),
            ("honcho_reasoning", {"query": SECRET}),
            ("honcho_context", {}),
            ("honcho_profile", {}),
            ("honcho_conclude", {"list": True}),
            ("honcho_conclude", {"list": True, "query": SECRET}),
        ):
            told.append(attacker.handle_tool_call(tool, {**arguments, "peer": peer}))
            assert "error" not in json.loads(told[-1])
    attacker.queue_prefetch(SECRET)
    told.append(attacker.prefetch(SECRET))
    assert "platypus" not in " ".join(told)
    assert "platypus" in victim.handle_tool_call("honcho_context", {})


@meeting
@pytest.mark.parametrize("backend", ["server", "embedded"])
@pytest.mark.parametrize("first", ["victim", pytest.param("attacker", marks=pytest.mark.slow)])
def test_whoever_picks_a_name_reads_nothing_of_another_user(  # noqa: PLR0917 - pytest names them
    request: pytest.FixtureRequest, tmp_path: Path, victim: Stated, attacker: Stated, backend: str, first: str
) -> None:
    url = request.getfixturevalue("server").url if backend == "server" else ""
    with ExitStack() as stack:
        one, other = victim.begin(tmp_path, url, stack), attacker.begin(tmp_path, url, stack)
        if first == "attacker":
            other.sync_turn("I am here", "").result(20)
        check_apart(one, other)
        if attacker.user != "operator" or victim.user:
            sessions, peers = (
                {getattr(each.status(), name) for each in (one, other)} for name in ("session", "user_peer")
            )
            assert len(sessions) == len(peers) == 2


# Few characters, of which most are made alike.
alike = st.text("ab:-. @", min_size=1, max_size=4).filter(lambda raw: raw.strip(": "))


@slow
@given(
    st.lists(alike, min_size=2, max_size=2, unique=True), st.lists(alike, min_size=2, max_size=2, unique=True), alike
)
def test_users_of_a_gateway_whose_names_are_nearly_the_same_read_nothing_of_each_other(
    keys: list[str], users: list[str], title: str
) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        one, other = (
            Stated(key, user, title).begin(Path(temporary), "", stack) for key, user in zip(keys, users, strict=True)
        )
        check_apart(one, other)


def interleave(
    root: Path,
    acts: list[tuple[int, str] | str],
    caplog: pytest.LogCaptureFixture,
    stack: ExitStack,
    server: FaultyServer | None = None,
) -> list[Somebody]:
    """Let everybody act in the given order, and look at whatever comes back."""
    everybody = people()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="honcho_exec"):
        for one in everybody:
            one.begin(root, "" if server is None else server.url)
            stack.callback(one.provider.shutdown)
        for act in acts:
            if isinstance(act, str):
                if server is not None:
                    server.heal()
                    if act == "outage":
                        server.rule(match=("POST", "/(messages|conclusions)$"), fault=status(503))
                continue
            one = everybody[act[0]]
            assert of_others(ACTS[act[1]](one), one) == set(), act
            check_outbox(everybody)
        if server is not None:
            server.heal()
        for one in everybody:
            assert one.provider.flush(30) == 0
            assert of_others(turn(one), one) == set()
            found = [hit.content for hit in one.provider.search("fact", limit=50)]
            assert of_others(" ".join(found), one) == set()
        for one in everybody:
            one.provider.shutdown()
    assert {word for word in WORDS if word in caplog.text} == set()
    return everybody


class Recorder(SystemClock):
    """A clock that notes in whose context the lane asks for the time."""

    def __init__(self, who: contextvars.ContextVar[str]) -> None:
        self.who = who
        self.seen: set[str] = set()

    def monotonic(self) -> float:
        if threading.current_thread().name.startswith("honcho-lane"):
            self.seen.add(self.who.get())
        return super().monotonic()


def test_the_callers_context_reaches_the_lane(tmp_path: Path) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    clocks = {name: Recorder(who) for name in ("ada", "grace")}
    with ExitStack() as stack:
        for name, clock in clocks.items():
            provider = HonchoProvider(name, environ={"HOME": str(tmp_path)}, home=tmp_path / "state", clock=clock)
            stack.callback(provider.shutdown)
            context = contextvars.copy_context()
            context.run(who.set, name)
            context.run(provider.initialize)
            context.run(provider.sync_turn, f"I am {name}.", "").result(20)
    assert {name: name in clock.seen for name, clock in clocks.items()} == {"ada": True, "grace": True}
    assert not clocks["ada"].seen & {"grace"}
    assert not clocks["grace"].seen & {"ada"}
