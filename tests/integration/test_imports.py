"""Which thread imports what, looked at in processes that have imported nothing yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.serving import Served, start_serving

from honcho_exec import HonchoProvider

# Records which thread begins each import.
RECORD = """
import json, os, sys, threading
class Recorder:
    found = []
    def find_spec(self, name, path=None, target=None):
        self.found.append((threading.current_thread() is threading.main_thread(), name))
sys.meta_path.insert(0, Recorder())
"""

# Everything that a conversation does, on whichever thread.
LIVE = """
from honcho_exec import HonchoProvider
provider = HonchoProvider("s", environ=json.loads(sys.argv[1]))
provider.initialize()
began = len(Recorder.found)
provider.sync_turn("I like herons.", "Noted.").result(30)
for tool, arguments in (("honcho_search", {"query": "herons"}), ("honcho_context", {}), ("honcho_profile", {}),
                        ("honcho_conclude", {"conclusion": "Likes herons."}), ("honcho_reasoning", {"query": "who?"})):
    answer = json.loads(provider.handle_tool_call(tool, arguments))
    assert "error" not in answer, answer
provider.queue_prefetch("herons?")
provider.prefetch("herons?")
provider.shutdown()
"""

# Importing a module takes long on every thread but the main one.
SLOW = """
import importlib.util, json, sys, threading
class Slow:
    def __init__(self, name, seconds):
        self.name, self.seconds = name, seconds
    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def slowly(module):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                threading.Event().wait(self.seconds)
            run(module)
        spec.loader.exec_module = slowly
        return spec
begun = threading.Event()
"""

# A caller that looks into `sys.modules`, while an import of httpx in the background takes long.
LOOK = (
    SLOW
    + """
sys.meta_path.insert(0, Slow("httpx._config", 1))
from honcho_exec import HonchoProvider
provider = HonchoProvider("s", environ=json.loads(sys.argv[1]))
provider.initialize()
future = provider.sync_turn("I like herons.", "Noted.")
while not (future.done() or begun.wait(0.001)):
    pass
if (httpx := sys.modules.get("httpx")) is not None:
    assert httpx.AsyncClient and httpx.Timeout
future.result(30)
provider.shutdown()
"""
)

OURS = {"honcho", "honcho_exec", "falcon"}


def run(script: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, json.dumps(environ)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = start_serving(tmp_path / "served", "--no-auth")
    yield served
    served.process.kill()
    served.process.communicate()


def off_main(script: str, **environ: str) -> set[str]:
    """Return the packages outside the standard library that another thread than the main one imported."""
    found = json.loads(run(script + "print(json.dumps(Recorder.found))", **environ))
    assert len(found) > 100
    tops = {name.partition(".")[0] for on_main, name in found if not on_main}
    return tops - set(sys.stdlib_module_names)


def test_nothing_that_callers_share_is_imported_in_the_background(tmp_path: Path, served: Served) -> None:
    for number, backend in enumerate(({}, {"HONCHO_BASE_URL": served.url})):
        tops = off_main(RECORD + LIVE, HOME=str(tmp_path / str(number)), **backend)
        # What is looked for and not installed is not seen by anybody either.
        assert {top for top in tops if importable(top)} <= OURS


def test_a_caller_that_looks_into_the_loaded_modules_sees_no_half_of_httpx(tmp_path: Path) -> None:
    run(LOOK, HOME=str(tmp_path))


def test_importing_the_package_imports_no_other() -> None:
    script = "import sys, honcho_exec; assert not {'httpx', 'pydantic', 'asyncio', 'falcon'} & set(sys.modules)"
    run(script, HOME=os.devnull)


def importable(top: str) -> bool:
    return find_spec(top) is not None


# The interpreter exits in the middle of an import that the lane makes.
LEAVE = (
    SLOW
    + """
sys.meta_path.insert(0, Slow(sys.argv[2], 0.7))
from honcho_exec import HonchoProvider
provider = HonchoProvider("s", environ=json.loads(sys.argv[1]))
provider.initialize()
provider.queue_prefetch("herons?")
provider.sync_turn("I like herons.", "Noted.")
assert begun.wait(20)
"""
)


@pytest.mark.parametrize("module", ["falcon", "honcho_exec.embedded.api.app", "honcho", "honcho.session"])
def test_a_program_that_ends_while_the_lane_imports_says_nothing(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, json.dumps({"HOME": str(tmp_path)}), module],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # What was said is there for the next run.
    with HonchoProvider("s", environ={"HOME": str(tmp_path)}) as provider:
        assert provider.flush(20) == 0
        assert "herons" in provider.handle_tool_call("honcho_search", {"query": "herons"})
