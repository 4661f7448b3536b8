"""The host's own query rewriter, through its real auxiliary client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.faulty import status
from support.model_api import ScriptedModel
from support.paths import TESTS

if TYPE_CHECKING:
    from hermes.conftest import Host

WORDED = "Which tea has the user said they prefer earlier?"

TALK = """
import json, os, sys, tempfile
from pathlib import Path

sys.path.insert(0, {tests!r})
from agent.memory_manager import MemoryManager
from support.faulty import FaultyServer
from support.recalling import chats, script

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

honcho = EmbeddedHoncho(Path(tempfile.mkdtemp()) / "memory.db")
with FaultyServer(honcho.app) as server:
    waits = dict.fromkeys(("firstTurnBaseWait", "firstTurnDialecticWait"), 20)
    config = waits | {{"baseUrl": server.url, "queryRewrite": True}}
    Path(os.environ["HERMES_HOME"], "honcho.json").write_text(json.dumps(config))
    script(server, "She drinks tea.")
    manager = MemoryManager(external_prefetch_timeout=30)
    manager.add_provider(HonchoExecMemoryProvider())
    manager.initialize_all("run", platform="cli", hermes_home=os.environ["HERMES_HOME"], agent_context="primary")
    told = manager.prefetch_all("What shall I drink?")
    manager.shutdown_all()
    print(json.dumps([told, chats(server)]), flush=True)
honcho.close()
os._exit(0)
"""


def test_the_hosts_own_rewriter_words_the_question(host: Host) -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": WORDED}, "finish_reason": "stop"}]}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "fake", **answer}
    with ScriptedModel([]) as model:
        model.server.rule(match=("POST", "/chat/completions"), fault=status(200, body=json.dumps(body).encode()))
        host.use_model(model.url)
        told, asked = host.python(TALK.format(tests=str(TESTS)), {"PYTHONWARNINGS": "default"})
        (seen,) = [one for one in model.server.requests if one.is_for("POST", "/chat/completions")]
    assert "What shall I drink?" in json.dumps(seen.body_json)
    assert asked == [WORDED]
    assert "She drinks tea." in told
