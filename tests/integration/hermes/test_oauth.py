"""The bundled provider's grants: it writes what we read, and reads what we write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.memory.honcho import oauth as bundled
from support.faulty import FaultyServer
from support.login import TOKEN_PATH, Login

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.hermes.adapter import HonchoExecMemoryProvider
from honcho_exec.net.oauth.grant_file import GrantFile


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Login]:
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    yield Login(honcho.app)
    honcho.close()


def test_a_grant_goes_from_one_provider_to_the_other_and_back(login: Login, hermes_environ: Path) -> None:
    hermes_environ.mkdir(exist_ok=True)
    file = hermes_environ / "honcho.json"
    with FaultyServer(login) as server:
        file.write_text(json.dumps({"baseUrl": server.url}))
        grant = {"access_token": login.access, "refresh_token": login.refresh, "expires_in": 30, "scope": "write"}
        bundled.install_grant(file, "hermes", grant, client_id="hermes-agent", token_endpoint=server.url + TOKEN_PATH)
        shell = HonchoExecMemoryProvider()
        shell.initialize("s1", platform="cli")
        assert "conclusions" in json.loads(shell.handle_tool_call("honcho_conclude", {"list": True}))
        assert login.renewals == 1
        raw = json.loads(file.read_text())
        assert bundled.ensure_fresh_token(file, "hermes", raw) == (login.access, False)
        later = time.time() + login.life
        assert bundled.ensure_fresh_token(file, "hermes", raw, now=later) == (login.access, True)
        assert login.renewals == 2
        found = GrantFile(file, "hermes").read()
        assert found is not None
        assert (found.access, found.refresh) == (login.access, login.refresh)
        # What is held here was spent by the other: it is read anew, and nothing is bought.
        assert "conclusions" in json.loads(shell.handle_tool_call("honcho_conclude", {"list": True}))
        assert (login.renewals, login.reused) == (2, False)
        shell.shutdown()
