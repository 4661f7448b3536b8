"""What recall costs, beside what the host's bundled provider costs in the same conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.paths import TESTS

if TYPE_CHECKING:
    from hermes.conftest import Host

TALK = """
import json, os, sys, tempfile, threading
from pathlib import Path

sys.path.insert(0, {tests!r})
from agent.memory_manager import MemoryManager
from plugins.memory.honcho import HonchoMemoryProvider
from support.faulty import FaultyServer
from support.recalling import at_rest, chats, script

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

THEIRS = ("honcho-prefetch", "honcho-base", "honcho-context", "honcho-prewarm", "honcho-session-init")

def rest(provider):
    if isinstance(provider, HonchoExecMemoryProvider):
        return at_rest(provider._provider)
    for thread in threading.enumerate():
        if thread.name.startswith(THEIRS):
            thread.join(20)

def talk(provider, server):
    manager, counted = MemoryManager(), []
    manager.add_provider(provider)
    manager.initialize_all("run", platform="cli", hermes_home=os.environ["HERMES_HOME"], agent_context="primary")
    for number, prompt in enumerate({prompts!r}, 1):
        manager.on_turn_start(number, prompt)
        manager.prefetch_all(prompt)
        manager.queue_prefetch_all(prompt, session_id="run")
        assert manager.flush_pending(20)
        rest(provider)
        counted.append(len(chats(server)))
    manager.shutdown_all()
    return counted

counted = []
honcho = EmbeddedHoncho(Path(tempfile.mkdtemp()) / "memory.db")
with FaultyServer(honcho.app) as server:
    for number, (answers, settings) in enumerate({cases!r}):
        waits = dict.fromkeys(("firstTurnBaseWait", "firstTurnDialecticWait"), 20)
        config = waits | settings | {{"baseUrl": server.url, "apiKey": "k", "workspace": f"w{{number}}"}}
        Path(os.environ["HERMES_HOME"], "honcho.json").write_text(json.dumps(config))
        counted.append([])
        for make in HonchoMemoryProvider, HonchoExecMemoryProvider:
            server.heal()
            server.clear()
            script(server, *answers)
            counted[-1].append(talk(make(), server))
honcho.close()
print(json.dumps(counted), flush=True)
os._exit(0)  # the bundled provider leaves a thread behind
"""

PROMPTS = ["What do I drink?", "ok", "And what else?", "/help", "How come?", "thanks", "Tell me more of it."]
CASES: list[tuple[list[str | None], dict[str, object]]] = [
    (["She drinks tea."], {}),
    ([None], {}),
    ([None, None, "She drinks tea."], {"dialecticCadence": 2}),
    (["She drinks tea."], {"dialecticDepth": 3}),
]


def test_no_more_is_asked_than_by_the_bundled_provider(host: Host) -> None:
    program = TALK.format(tests=str(TESTS), prompts=PROMPTS, cases=CASES)
    counted = host.python(program, {"HERMES_DISABLE_LAZY_INSTALLS": "1"})
    for theirs, ours in counted:
        assert all(mine <= other for mine, other in zip(ours, theirs, strict=True)), counted
        assert ours[0] > 0
    assert counted[0] == [[2, 2, 3, 3, 4, 4, 5]] * 2
