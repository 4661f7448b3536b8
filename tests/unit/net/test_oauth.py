"""OAuth grants in Honcho's own file: renewed once, written back, and said plainly when they are worth nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyServer, hang, status
from support.login import TOKEN_PATH, Login
from support.processes import Victim
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.clock import Deadline, SystemClock
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.storage.file_lock import exclusive

RENEW = ("POST", TOKEN_PATH)
ASKED = ("*", "/v3/")


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Login]:
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    yield Login(honcho.app)
    honcho.close()


@pytest.fixture
def server(login: Login) -> Iterator[FaultyServer]:
    with FaultyServer(login) as running:
        yield running


def honcho_json(home: Path, login: Login, server: FaultyServer, *, left: float) -> Path:
    """Write the file as the bundled provider leaves it, with so many seconds of the access token left."""
    file = home / ".honcho" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps(
            {
                "peerName": "zoë",
                "hosts": {
                    "other": {"apiKey": "another's"},
                    "hermes": {
                        "aiPeer": "hermes",
                        "baseUrl": server.url,
                        **login.grant(server.url, expires_at=time.time() + left),
                    },
                },
            },
        )
    )
    return file


def block(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())["hosts"]["hermes"]
    return found


def ask(provider: HonchoProvider) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(provider.handle_tool_call("honcho_conclude", {"list": True}))
    return answer


def test_a_token_near_its_end_is_renewed_once_and_written_back(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    file = honcho_json(tmp_path, login, server, left=60)
    before = json.loads(file.read_text())
    provider = make_provider()
    with ThreadPoolExecutor(8) as pool:
        assert all("conclusions" in answer for answer in pool.map(lambda _: ask(provider), range(16)))
    assert provider.sync_turn("said", "heard").result(10).written == 2
    assert (login.renewals, login.reused, server.count(*RENEW)) == (1, False, 1)
    after = json.loads(file.read_text())
    assert (after["hosts"]["hermes"]["apiKey"], after["hosts"]["hermes"]["oauth"]["refreshToken"]) == (
        login.access,
        login.refresh,
    )
    assert after["hosts"]["hermes"]["oauth"]["expiresAt"] > time.time() + 3000
    for root in (before, after):
        for key in ("apiKey", "oauth"):
            del root["hosts"]["hermes"][key]
    assert after == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in file.parent.iterdir()} == {"config.json", "config.json.lock"}


def test_a_token_that_is_refused_is_renewed_once_and_the_request_made_again(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    honcho_json(tmp_path, login, server, left=3600)
    provider = make_provider(recall_mode="tools")
    assert "conclusions" in ask(provider)
    login.expire()
    assert provider.sync_turn("said", "").result(10).written == 1
    assert (login.renewals, login.reused) == (1, False)
    assert provider.status().ok


def test_two_processes_spend_one_grant_together(login: Login, server: FaultyServer, tmp_path: Path) -> None:
    home = tmp_path / "shared"
    file = honcho_json(home, login, server, left=30)
    with Victim(home, "one", recall_mode="tools") as one, Victim(home, "two", recall_mode="tools") as two:
        for round_ in range(3):
            for process in (one, two):
                process.order("turn", f"{process.pid} {round_}")
            for process in (one, two):
                process.order("flush", 20)
                assert process.hear("left", 30) == [0]
            assert (login.renewals, login.reused) == (round_ + 1, False)
            login.expire()
        one.finish()
        two.finish()
    assert block(file)["oauth"]["refreshToken"] == login.refresh


def test_whoever_waited_for_anothers_renewal_takes_what_that_bought(
    login: Login,
    server: FaultyServer,
    make_provider: MakeProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = honcho_json(tmp_path, login, server, left=-5)
    waiting = threading.Event()

    def telling(*args: Any, **options: Any) -> AbstractContextManager[None]:
        waiting.set()
        return exclusive(*args, **options)

    monkeypatch.setattr("honcho_exec.net.oauth.grant.exclusive", telling)
    with exclusive(Path(f"{file}.lock"), Deadline.after(0, SystemClock()), keep=True):
        provider = make_provider()
        assert waiting.wait(10)
        login.log_in_again(file, server.url, expires_at=time.time() + 3600)
    assert "conclusions" in ask(provider)
    assert server.count(*RENEW) == 0


def test_a_revoked_grant_is_said_plainly_never_hammered_and_used_again_after_a_login(
    login: Login,
    server: FaultyServer,
    make_provider: MakeProvider,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    file = honcho_json(tmp_path, login, server, left=3600)
    tokens = {login.access, login.refresh}
    login.revoked = login.refuses = True
    provider = make_provider(recall_mode="tools")
    turn = provider.sync_turn("kept", "")
    said = str(turn.exception(10))
    assert "revoked" in said
    assert "log in" in said
    asked = len(server.requests)
    for number in range(5):
        answer = ask(provider)
        assert (answer["cause"], answer["retryable"]) == ("auth", False)
        provider.sync_turn(f"kept too {number}", "")
    assert len(server.requests) == asked
    assert server.count(*RENEW) == 1
    shown = caplog.text + said + repr(provider) + json.dumps(provider.status().to_dict()) + json.dumps(ask(provider))
    assert not any(token in shown for token in tokens)
    login.log_in_again(file, server.url, expires_at=time.time() + 3600)
    assert provider.flush(20) == 0
    assert "conclusions" in ask(provider)
    assert provider.status().parked == 0


def test_a_token_that_is_good_for_a_while_is_used_while_the_endpoint_fails(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    honcho_json(tmp_path, login, server, left=100)
    server.rule(match=RENEW, fault=status(503))
    provider = make_provider()
    for _ in range(5):
        assert "conclusions" in ask(provider)
    assert server.count(*RENEW) == 1


def test_a_token_that_ran_out_while_the_endpoint_fails_costs_a_wait_and_no_turn(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    file = honcho_json(tmp_path, login, server, left=-5)
    server.rule(match=RENEW, fault=status(503))
    provider = make_provider(retry_max_wait=0.1, recall_mode="tools")
    error = provider.sync_turn("kept", "").exception(10)
    assert "token endpoint" in str(error)
    assert server.count(*RENEW) == 1
    assert server.count(*ASKED) == 0
    answer = ask(provider)
    assert answer["retryable"]
    assert "token endpoint" in answer["error"]
    server.heal()
    login.log_in_again(file, server.url, expires_at=time.time() + 3600)
    assert provider.flush(20) == 0


def test_a_new_token_that_is_refused_as_well_is_not_renewed_for_ever(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    honcho_json(tmp_path, login, server, left=3600)
    login.refuses = True
    provider = make_provider(recall_mode="tools")
    assert "just renewed" in str(provider.sync_turn("kept", "").exception(10))
    asked = len(server.requests)
    for _ in range(4):
        assert ask(provider)["cause"] == "auth"
    assert (len(server.requests), login.renewals) == (asked, 1)


def test_what_cannot_be_written_down_is_not_bought_and_what_was_bought_is_not_lost(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    file = honcho_json(tmp_path, login, server, left=-5)
    (in_the_way := file.with_name("config.json.lock")).mkdir()
    provider = make_provider(recall_mode="tools")
    assert "cannot be renewed" in str(provider.sync_turn("kept", "").exception(10))
    assert server.count(*RENEW) == 0
    in_the_way.rmdir()
    (draft := file.with_name(f".config.json.{os.getpid()}.new")).mkdir()
    assert provider.flush(20) == 0
    assert block(file)["apiKey"] != login.access
    draft.rmdir()
    login.expire()
    assert provider.sync_turn("and then", "").result(10).written == 1
    assert (login.renewals, login.reused) == (2, False)
    assert block(file)["apiKey"] == login.access


def test_a_key_in_the_environment_or_in_place_of_the_token_leaves_the_grant_alone(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    file = honcho_json(tmp_path, login, server, left=-5)
    before = file.read_text()
    login.access = "a-plain-key"
    assert "conclusions" in ask(make_provider(api_key="a-plain-key"))
    root = json.loads(before)
    root["hosts"]["hermes"]["apiKey"] = "a-plain-key"
    file.write_text(json.dumps(root))
    assert "conclusions" in ask(make_provider("s2"))
    assert json.loads(file.read_text()) == root
    assert server.count(*RENEW) == 0


@pytest.mark.parametrize("endpoint", ["http://login.example/token", "ftp://127.0.0.1/token", "no url"])
def test_a_refresh_token_is_not_sent_in_the_clear(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path, endpoint: str
) -> None:
    file = honcho_json(tmp_path, login, server, left=-5)
    root = json.loads(file.read_text())
    root["hosts"]["hermes"]["oauth"]["tokenEndpoint"] = endpoint
    file.write_text(json.dumps(root))
    assert "https://" in ask(make_provider())["error"]
    assert login.renewals == 0


def test_closing_does_not_wait_for_a_token_endpoint_that_hangs(
    login: Login, server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    honcho_json(tmp_path, login, server, left=-5)
    server.rule(match=RENEW, fault=hang())
    provider = make_provider(shutdown_timeout=0.1, recall_mode="tools")
    provider.sync_turn("kept", "")
    assert server.wait_count(1, *RENEW)
    begun = time.monotonic()
    provider.shutdown()
    assert time.monotonic() - begun < 5
