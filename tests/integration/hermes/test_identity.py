"""Present users find what they have: workspace, peers and session are those of the host's bundled provider.

They are compared with the bundled provider's own resolution over generated configurations. Where this provider departs
on purpose, `expected` says so, and why; nothing else differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from plugins.memory.honcho.client import HonchoClientConfig
from plugins.memory.honcho.session import HonchoSessionManager
from support.paths import TESTS

from honcho_exec.model import SessionRef
from honcho_exec.settings import load
from honcho_exec.settings.identity import HostContext, resolve

if TYPE_CHECKING:
    from hermes.conftest import Host

USER = "os-user"

IDS = ("77", "78", "@ada:matrix.org", "x" * 130, "ada")
names = st.sampled_from(["ada", "Ada L.", "77", "@ada:matrix.org", "+49170", "a-b", "a.b", "Zoë", "bot", "x" * 130])
ids = st.sampled_from(["", " ", *IDS, *IDS])


def chosen(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A block of the file with about half of the keys."""
    drawn = st.fixed_dictionaries(
        {
            name: st.sampled_from([True, False]).flatmap(lambda here, of=of: of if here else st.none())
            for name, of in keys.items()
        }
    )
    return drawn.map(lambda block: {name: value for name, value in block.items() if value is not None})


blocks = chosen(
    workspace=st.sampled_from(["w", "team_1"]),
    peerName=names,
    aiPeer=st.sampled_from(["ada", "my bot", "Zoë"]),
    pinPeerName=st.booleans(),
    pinUserPeer=st.booleans(),
    userPeerAliases=st.dictionaries(st.sampled_from(IDS), names, max_size=3),
    runtimePeerPrefix=st.sampled_from(["", "telegram_", "tg:"]),
    sessionStrategy=st.sampled_from(["per-directory", "per-session", "per-repo", "global"]),
    sessionPeerPrefix=st.booleans(),
    defaultHost=st.sampled_from(["", "local"]),
)
HOSTS = ("hermes", "hermes_coder", "hermes.coder", "local", "mine")
roots = st.builds(
    lambda root, hosts: root | {"hosts": hosts},
    blocks,
    st.lists(st.tuples(st.sampled_from(HOSTS), blocks), min_size=1, max_size=3).map(dict),
)
folders = st.sampled_from(["project", "my.site", "My Project", "日本", "y" * 120])
calls = st.fixed_dictionaries(
    {
        "session_id": st.sampled_from(["20260415_120000_a3f2b1", "s:1"]),
        "session_title": st.just("") | st.sampled_from(["My plan!", "!!!", "t" * 120]),
        "gateway_session_key": st.just("")
        | st.sampled_from(["agent:main:telegram:dm:42", "!room:server", "k" * 130, "::"]),
        "user_id": ids,
        "user_id_alt": ids,
    }
)


def bundled(
    call: dict[str, Any], cwd: str, config: HonchoClientConfig | None = None
) -> tuple[HonchoClientConfig, SessionRef]:
    """What the bundled provider would use."""
    config = config or HonchoClientConfig.from_global_config()
    named = config.resolve_session_name(
        cwd=cwd,
        session_title=call["session_title"] or None,
        session_id=call["session_id"],
        gateway_session_key=call["gateway_session_key"] or None,
    )
    # The words of the provider's own _resolve_session_key.
    key = named or call["session_id"] or "hermes-default"
    manager = HonchoSessionManager(
        # Nothing is asked of a server here.
        honcho=None,
        config=replace(config, write_frequency="turn"),
        runtime_user_peer_name=call["user_id"] or None,
        runtime_user_peer_name_alt=call["user_id_alt"] or None,
    )
    return config, SessionRef(
        workspace=config.workspace_id,
        session=manager._sanitize_id(key),
        user_peer=manager._resolve_user_peer_id(key),
        ai_peer=manager._sanitize_id(config.ai_peer),
    )


def hashed(raw: str, digits: int = 20) -> str:
    return f"{re.sub('[^a-zA-Z0-9_-]', '-', raw)}-{hashlib.sha256(raw.encode()).hexdigest()[:digits]}"


def expected(call: dict[str, Any], cwd: str) -> SessionRef:
    """What the bundled provider would use, but for the departures."""
    config, theirs = bundled(call, cwd)
    peer = expected_peer(config, theirs, call)
    call = call | {"user_id": call["user_id"] or "", "user_id_alt": call["user_id_alt"] or ""}
    pinned = config.pin_peer_name and config.peer_name
    shared = (call["user_id"] or call["user_id_alt"] or call["gateway_session_key"]) and not pinned
    named = replace(config, peer_name=peer)
    key = call["gateway_session_key"]
    if key.strip(":"):
        # A gateway's chat comes before everything else. Other keys could give the same name, unless all the key's
        # segments are letters, digits and underscores.
        slug = re.sub(r"[^a-zA-Z0-9_-]+", "-", key).strip("-")
        plain = re.fullmatch(r"\w+(:\w+)*", key, re.ASCII) and len(key) <= 100
        session = (
            slug if plain else hashed(key).removeprefix("-") if len(key) <= 79 else f"{slug[:79]}{hashed(key)[-21:]}"
        )
        return replace(theirs, session=session, user_peer=peer)
    # The host's run comes before the map and a title; a title names nothing where several people talk to the assistant.
    call = call | {"gateway_session_key": ""}
    if config.session_strategy == "per-session":
        session = ("" if not config.session_peer_prefix else f"{peer}-") + call["session_id"]
        session = hashed(session) if shared and ":" in session else session.replace(":", "-")
    else:
        call = call | ({"session_title": ""} if shared else {})
        session = bundled(call, cwd, named)[1].session
    if len(session) > 100:
        event("a session's name is cut")
        # A name longer than Honcho's limit is cut with a hash; the bundled provider does so to a gateway's only.
        session = f"{session[:91].rstrip('-')}-"
    return replace(theirs, session=session, user_peer=peer)


def expected_peer(config: HonchoClientConfig, theirs: SessionRef, call: dict[str, Any]) -> str:
    runtime = [one for one in (call["user_id"], call["user_id_alt"]) if one and one.strip()]
    if not runtime and not config.peer_name:
        # Nobody is named: the system's user, not somebody made up from the session.
        event("the system's user")
        return USER
    pinned = config.pin_peer_name and config.peer_name
    aliased = any(config.user_peer_aliases.get(one) for one in runtime)
    if runtime and not pinned and not aliased:
        raw = config.runtime_peer_prefix + runtime[0]
        chosen = [config.peer_name, config.ai_peer, *config.user_peer_aliases.values()]
        taken = {re.sub("[^a-zA-Z0-9_-]", "-", name.strip()) for name in chosen if name}
        if re.search("[^a-zA-Z0-9_-]", raw) or raw in taken:
            # Two users never become one: what making it safe changes has a hash without a prefix too, and so has what
            # meets the assistant.
            event("a hash")
            digits = 8 if re.fullmatch(r"\w+", runtime[0], re.ASCII) and len(raw) <= 503 else 20
            return hashed(raw, digits)
    return theirs.user_peer


def ours(call: dict[str, Any], cwd: str, profile: str) -> SessionRef:
    stated = {name: value or "" for name, value in call.items()}
    loaded = load(os.environ, hermes_home=os.environ["HERMES_HOME"], profile=profile)
    # Which sessions come into question is another matter (tests/integration/test_earlier_names.py).
    return replace(resolve(loaded.settings, HostContext(cwd=cwd, **stated), {"LOGNAME": USER}), key="")


@settings(max_examples=200, deadline=None)
@given(
    root=roots,
    call=calls,
    folder=folders,
    mapped=st.sampled_from(["", "", "manual one"]),
    profile=st.sampled_from(["default", "coder"]),
    host=st.sampled_from(["", "", "mine"]),
    beside=st.booleans(),
)
def test_present_users_find_what_they_have(  # noqa: PLR0917 - hypothesis names them
    root: dict[str, Any], call: dict[str, Any], folder: str, mapped: str, profile: str, host: str, beside: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        hermes = Path(temporary).resolve() / ".hermes"
        home = hermes if profile == "default" else hermes / "profiles" / profile
        cwd = str(Path(temporary).resolve() / folder)
        Path(cwd).mkdir()
        home.mkdir(parents=True)
        # The profile's own file, or that of the default profile.
        file = (home if beside else hermes) / "honcho.json"
        file.write_text(json.dumps(root | ({"sessions": {cwd: mapped}} if mapped else {})), encoding="utf-8")
        environ = {"HOME": temporary, "HERMES_HOME": str(home), "HERMES_HONCHO_HOST": host, "PATH": os.environ["PATH"]}
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - environ.keys():
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
            wanted, found = expected(call, cwd), ours(call, cwd, profile)
    if wanted.session.endswith("-") and len(wanted.session) > 90:
        assert re.fullmatch(rf"{re.escape(wanted.session)}[0-9a-f]{{8}}", found.session)
        wanted = replace(wanted, session=found.session)
    assert found == wanted


def test_without_a_file_a_profile_has_a_workspace_of_its_own(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled provider's profiles share one then; otherwise both are the same."""
    call = {"session_id": "s", "session_title": "", "gateway_session_key": "", "user_id": "7", "user_id_alt": None}
    monkeypatch.setenv("HERMES_HOME", str(hermes_environ))
    assert ours(call, "/x/project", "default") == expected(call, "/x/project")
    coder = hermes_environ / "profiles" / "coder"
    coder.mkdir(parents=True)
    monkeypatch.setenv("HERMES_HOME", str(coder))
    theirs = expected(call, "/x/project")
    assert ours(call, "/x/project", "coder") == replace(theirs, workspace="hermes_coder")
    assert theirs.workspace == "hermes"


def git(*arguments: str | Path) -> None:
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True)  # noqa: S607 - as the host finds it


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories in each other, in working trees and in none."""
    root = tmp_path_factory.mktemp("repositories").resolve()
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    git("init", root / "outer")
    git("-C", root / "outer", *author, "commit", "--allow-empty", "-m", "x")
    git("-C", root / "outer", "worktree", "add", root / "tree")
    git("init", root / "outer" / "vendor" / "inner")
    git("init", "--bare", root / "outer" / "bare.git")
    for folder in ("outer/src/deep", "outer/vendor/inner/src", "tree/src", "none/src"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "link").symlink_to(root / "outer" / "src")
    return root


@pytest.mark.parametrize(
    "folder",
    [
        *("outer", "outer/src/deep", "outer/vendor", "outer/vendor/inner/src", "tree/src", "none/src"),
        *("outer/.git", "outer/.git/objects", "outer/bare.git", "outer/bare.git/refs", "link"),
    ],
)
def test_the_repository_is_the_one_that_git_finds(
    hermes_environ: Path, monkeypatch: pytest.MonkeyPatch, repositories: Path, folder: str
) -> None:
    hermes_environ.mkdir(parents=True)
    (hermes_environ / "honcho.json").write_text('{"sessionStrategy": "per-repo"}', encoding="utf-8")
    monkeypatch.chdir(repositories / folder)
    cwd = str(Path.cwd())
    call = {"session_id": "s", "session_title": "", "gateway_session_key": "", "user_id": "7", "user_id_alt": None}
    assert ours(call, cwd, "default").session == expected(call, cwd).session


MOVE = """
import json, os, sys, tempfile
from pathlib import Path

sys.path.insert(0, {tests!r})
from agent.memory_manager import MemoryManager
from plugins.memory.honcho import HonchoMemoryProvider
from support.faulty import FaultyServer

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

def talk(provider, stated):
    manager = MemoryManager()
    manager.add_provider(provider)
    manager.initialize_all(
        "run", platform="cli", hermes_home=os.environ["HERMES_HOME"], agent_context="primary", **stated
    )
    if isinstance(provider, HonchoMemoryProvider):
        provider._init_thread.join(20)
    manager.sync_all("I moved to Lisbon.", "Noted.", session_id="run")
    assert manager.flush_pending(20)
    if isinstance(provider, HonchoMemoryProvider):
        provider._sync_thread.join(20)
    manager.shutdown_all()

def sent(server):
    return [
        (seen.path, message["peer_id"], message["content"])
        for seen in server.requests
        if seen.is_for("POST", "/messages$")
        for message in seen.body_json["messages"]
    ]

seen = []
honcho = EmbeddedHoncho(Path(tempfile.mkdtemp()) / "memory.db")
with FaultyServer(honcho.app) as server:
    config = {config!r} | {{"baseUrl": server.url, "apiKey": "k"}}
    Path(os.environ["HERMES_HOME"], "honcho.json").write_text(json.dumps(config))
    for stated in {stated!r}:
        for make in HonchoMemoryProvider, HonchoExecMemoryProvider:
            server.clear()
            talk(make(), stated)
            seen.append(sent(server))
honcho.close()
print(json.dumps(seen), flush=True)
os._exit(0)  # the bundled provider leaves a thread behind
"""


def test_whoever_changes_the_provider_goes_on_where_they_were(host: Host) -> None:
    """The whole way, from the host's manager to what a server gets."""
    config = {
        "peerName": "Ada L.",
        "hosts": {
            "hermes": {"workspace": "team", "aiPeer": "my bot", "runtimePeerPrefix": "tg:", "saveMessages": True}
        },
    }
    stated = [
        {},
        {"user_id": "ada_l", "gateway_session_key": "agent:main:telegram:dm:42"},
        {"session_title": "My plan!"},
    ]
    program = MOVE.format(tests=str(TESTS), config=config, stated=stated)
    seen = host.python(program, {"HERMES_DISABLE_LAZY_INSTALLS": "1"})
    theirs, ours = seen[::2], seen[1::2]
    assert ours == theirs
    assert [path.partition("/workspaces/")[2] for ((path, *_), _) in ours] == [
        "team/sessions/project/messages",
        "team/sessions/agent-main-telegram-dm-42/messages",
        "team/sessions/My-plan/messages",
    ]
    assert [[who for _, who, _ in turn] for turn in ours] == [
        ["Ada-L-", "my-bot"],
        [hashed("tg:ada_l", 8), "my-bot"],
        ["Ada-L-", "my-bot"],
    ]
