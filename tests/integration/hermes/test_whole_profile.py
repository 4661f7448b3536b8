"""A named profile of the real host has a memory of its own, which the command line finds by the profile's name."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.model_api import ScriptedModel

from honcho_exec.cli.hermes.installer import install

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Host


def looked_at(host: Host, profile: str, *command: str) -> Any:
    arguments = ["--hermes-home", str(host.hermes_home), "--profile", profile, *command, "--json"]
    program = f"import sys; from honcho_exec.cli.main import main; main({arguments!r})"
    done = host._run([sys.executable, "-c", program], None)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_a_profile_remembers_is_its_own_and_is_found_by_its_name(host: Host) -> None:
    home = host.hermes_home / "profiles" / "coder"
    install(home)
    (home / ".env").write_text("HONCHO_PEER_NAME='grace'\n", encoding="utf-8")
    with ScriptedModel(["Noted."]) as model:
        host.use_model(model.url)
        shutil.copy(host.hermes_home / "config.yaml", home / "config.yaml")
        assert host.hermes("-p", "coder", "-z", "I moved to Lisbon.") == "Noted.\n"
    coder, default = (looked_at(host, profile, "status") for profile in ("coder", "default"))
    assert (coder["workspace"], coder["user_peer"]) == ("hermes_coder", "grace")
    assert coder["state"] == str(home / "honcho_exec")
    assert (default["workspace"], default["user_peer"]) == ("hermes", "ada")
    assert "I moved to Lisbon." in {hit["content"] for hit in looked_at(host, "coder", "search", "Lisbon")["hits"]}
    assert looked_at(host, "default", "search", "Lisbon")["hits"] == []
