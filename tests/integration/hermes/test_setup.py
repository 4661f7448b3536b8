from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml
from support.faulty import FaultyServer

from honcho_exec import HonchoProvider
from honcho_exec.settings import Settings, load

if TYPE_CHECKING:
    from conftest import Host

# The host's own commands, one after the other in one process: a start of the host takes seconds.
COMMANDS = """
import contextlib, io, json, sys

told = []
for line in sys.argv[1:]:
    out = io.StringIO()
    sys.argv = ["hermes", *line.split()]
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        from hermes_cli.main import main
        main()
    told.append(out.getvalue())
print(json.dumps(told))
"""


def run(host: Host, *lines: str, stdin: str = "") -> list[str]:
    """Run commands of the host without a terminal, and return what each prints."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *lines],
        env=host.environ(),
        cwd=host.root,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    told: list[str] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_person_sets_it_up_and_uses_it_with_the_hosts_own_commands(host: Host) -> None:
    (host.hermes_home / "config.yaml").write_text("model:\n  default: fake\n")
    archive = host.root / "backup.zip"
    setup, memory, plugins, status, config, outbox, search, commands, _ = run(
        host,
        "memory setup honcho_exec",
        "memory status",
        "plugins list --plain",
        "honcho_exec status --json",
        "honcho_exec config --json",
        "honcho_exec outbox list --json",
        "honcho_exec search bees --json",
        "honcho_exec",
        f"backup -o {archive}",
        stdin="9\n1\nnadia\n",
    )
    assert "Please say 1, 2 or 3." in setup
    assert "It works: memory is kept on this machine" in setup
    chosen = yaml.safe_load((host.hermes_home / "config.yaml").read_text())
    assert (chosen["memory"]["provider"], chosen["model"]["default"]) == ("honcho_exec", "fake")
    assert "HONCHO_PEER_NAME=nadia" in (host.hermes_home / ".env").read_text()
    assert "Provider:  honcho_exec" in memory
    assert "Status:    available" in memory
    assert "honcho_exec" in plugins
    seen = json.loads(status)
    assert (seen["backend"], seen["user_peer"], seen["state"]) == ("embedded", "nadia", str(host.state))
    assert json.loads(config)["settings"]["peerName"]["value"] == "nadia"
    assert json.loads(outbox)["rows"] == []
    assert json.loads(search) == {"hits": []}
    assert "purge" in commands
    names = set(zipfile.ZipFile(archive).namelist())
    assert {"honcho_exec/memory.db", "honcho_exec/outbox.db", "plugins/honcho_exec/cli.py"} <= names


def test_a_server_is_tried_and_what_cannot_be_is_not_written(host: Host, server: FaultyServer) -> None:
    with HonchoProvider("s", environ={"HOME": str(host.root), "HONCHO_BASE_URL": server.url}) as provider:
        provider.sync_turn("The heron stands in the reeds.", "It does.").result(20)
    line = "memory setup honcho_exec"
    answers = f"3\n\n\n2\nhtp://wrong\nlocalhost:8000\nembedded\n{server.url}\n\nada\n"
    keyless, accepted, search = run(host, line, line, "honcho_exec search heron", stdin=answers)
    assert "takes nothing without one" in keyless
    assert "Saved" not in keyless
    refusals = re.findall(r"must be an http:// or https:// URL, such as http://localhost:8000.*it is '(.*)'", accepted)
    assert (refusals, "That is not a server" in accepted) == (["htp://wrong", "localhost:8000"], True)
    assert f"It works: memory is kept in {server.url}" in accepted
    written = (host.hermes_home / ".env").read_text()
    assert f"HONCHO_BASE_URL={server.url}" in written
    assert "htp" not in written
    assert "The heron stands in the reeds." in search


@pytest.mark.parametrize(
    ("name", "peer"), [("Max Müller", "Max-Muller"), ("李雷", "3a47328a607f3e0a738a"), ("ada_l-1", "ada_l-1")]
)
def test_a_person_may_have_any_name(host: Host, name: str, peer: str) -> None:
    setup, status = run(host, "memory setup honcho_exec", "honcho_exec status --json", stdin=f"1\n{name}\n")
    assert f"HONCHO_PEER_NAME={peer}" in (host.hermes_home / ".env").read_text()
    assert json.loads(status)["user_peer"] == peer
    assert (f"you are called {peer} there" in setup) == (name != peer)


# What the dashboard does when a person opens the panel, and when they save it.
DASHBOARD = """
import json

from hermes_cli import web_server
from plugins.memory.config_schema import get_provider_config_schema

schema = get_provider_config_schema("honcho_exec")
values = {"baseUrl": "http://127.0.0.1:9", "timeout": "12", "recallMode": "tools", "saveMessages": "false",
          "sessions": '{"/home/ada": "home"}', "workspace": "w7", "apiKey": "k-1"}
web_server._write_provider_honcho(schema, values)
shown = web_server._declared_provider_payload(schema)
# The full panel sends back everything that it shows.
web_server._write_provider_honcho(schema, {field["key"]: field["value"] for field in shown["fields"]})
print(json.dumps({field["key"]: field for field in shown["fields"]}))
"""


def test_what_the_dashboard_saves_is_what_counts(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DASHBOARD], env=host.environ(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert len(shown) == len(Settings.model_fields)
    assert (shown["timeout"]["value"], shown["recallMode"]["value"]) == ("12", "tools")
    assert (shown["apiKey"]["value"], shown["apiKey"]["is_set"]) == ("", True)
    settings = load(host.environ(), hermes_home=host.hermes_home).settings
    chosen = {"base_url", "timeout", "recall_mode", "save_messages", "sessions", "workspace", "ai_peer", "api_key"}
    assert settings.model_dump(exclude=chosen) == Settings().model_dump(exclude=chosen)
    assert (settings.backend_url, settings.workspace, settings.timeout) == ("http://127.0.0.1:9", "w7", 12.0)
    assert (settings.recall_mode, settings.save_messages) == ("tools", False)
    assert settings.sessions == {"/home/ada": "home"}
    assert settings.api_key is not None
