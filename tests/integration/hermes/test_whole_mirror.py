from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.faulty import FaultyServer
from support.model_api import ScriptedModel
from support.processes import conclusions_on, messages_on

from honcho_exec.embedded import EmbeddedHoncho

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Host


def test_what_a_real_run_keeps_in_the_built_in_memory_is_in_honcho(host: Host) -> None:
    embedded = EmbeddedHoncho(host.root / "server.db")
    script = [
        ("memory", {"action": "add", "target": "user", "content": "Ada keeps bees in Lisbon"}),
        ("memory", {"action": "replace", "target": "user", "old_text": "bees", "content": "Ada keeps hens in Porto"}),
        "Noted.",
    ]
    (host.hermes_home / "memories").mkdir()
    (host.hermes_home / "memories" / "MEMORY.md").write_text("The printer is on the third floor")
    with FaultyServer(embedded.app) as server, ScriptedModel(script) as model:
        host.use_model(model.url)
        settings = {"HONCHO_BASE_URL": server.url, "HONCHO_MIGRATE_MEMORY_FILES": "true"}
        assert host.hermes("-z", "Hens, and in Porto.", settings=settings) == "Noted.\n"
        assert conclusions_on(server.url) == ["Ada keeps hens in Porto"]
        files = messages_on(server.url, "memory-files-ada")
        assert sum("third floor" in text for text in files) == 1
    embedded.close()
