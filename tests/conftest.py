"""What every test has: a home of its own, real servers on loopback, and no thread left behind."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.faulty import FaultyServer
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.net import failures
from honcho_exec.runtime import offload

THREAD_GRACE = 5.0

# Test modules import the host while they are collected, and the host makes files in its home as it is imported.
_HOME = tempfile.TemporaryDirectory(prefix="honcho-exec-tests-")
_OURS = ("HONCHO_", "HERMES_")
for name in [name for name in os.environ if name.startswith(_OURS)]:
    del os.environ[name]
os.environ |= {"HOME": _HOME.name, "HERMES_HOME": str(Path(_HOME.name) / ".hermes")}

# A shell starts a job in the background with SIGINT ignored, and a child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On two cores: tests wait for half of their time.
_PROCESSES = 4

# Tests in these folders have this marker.
_FOLDERS = {"slow": "reliability", "host": "hermes", "clients": "clients"}

# The same examples every time: what is found is found by whoever looks for it, not by chance in somebody's run.
# `pytest --hypothesis-profile=long …` tries other ones, and fifty times as many; see `support.machines` too.
settings.register_profile("steady", derandomize=True)
settings.register_profile("long", max_examples=5_000)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, before they are selected by their markers."""
    for item in items:
        for marker, folder in _FOLDERS.items():
            if folder in item.path.parts:
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite between some processes; chosen tests run in this one."""
    option = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    # The processes that are started come here too, and must not start others.
    if (
        whole
        and not hasattr(config, "workerinput")
        and not option.usepdb
        and getattr(option, "numprocesses", 0) is None
    ):
        option.numprocesses = _PROCESSES


def pytest_collection_finish() -> None:
    """Have no collection of garbage look through all that was imported, again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Remove the home that stood in for the real one."""
    _HOME.cleanup()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the person who runs the tests is read or written."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ada")


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """Fail the test that leaves a thread or an open provider behind."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    if left:
        gc.collect()
    for thread in left:
        thread.join(THREAD_GRACE)
    assert [thread.name for thread in left if thread.is_alive()] == []
    assert not offload._pool()._users


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """A real HTTP server with a whole Honcho behind it, that misbehaves on demand."""
    honcho = EmbeddedHoncho(tmp_path / "server" / "memory.db")
    with FaultyServer(honcho.app) as running:
        yield running
    honcho.close()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits of the lane's own, for tests of what is done and not of when.

    The first wait after a failure is of at most 0.05 s instead of 0.5 s and none is longer than 0.5 s. What timed out
    may still arrive for one second instead of three, and what was reset or lost by a proxy for 0.3 s instead of one.
    """
    monkeypatch.setattr("honcho_exec.net.backoff._FIRST_SECONDS", 0.05)
    monkeypatch.setattr("honcho_exec.net.backoff.CAP_SECONDS", 0.5)
    for module in ("net.failures", "client.api"):
        monkeypatch.setattr(f"honcho_exec.{module}.LATE_SECONDS", 1.0)
    monkeypatch.setattr(failures, "_RESET_LATE_SECONDS", 0.3)
    for status, late in {502: 0.3, 503: 0.3, 504: 1.0}.items():
        monkeypatch.setitem(failures._LATE_BY_STATUS, status, late)


@pytest.fixture
def make_provider(tmp_path: Path) -> Iterator[MakeProvider]:
    """Make an initialized provider from settings; it is shut down after the test."""
    made: list[HonchoProvider] = []

    def make(
        session: str | None = "s1",
        *,
        home: str = "state",
        query_rewriter: Callable[[str], str] | None = None,
        **settings: object,
    ) -> HonchoProvider:
        environ = {"HOME": str(tmp_path), "LOGNAME": "ada"}
        environ |= {f"HONCHO_{name.upper()}": str(value) for name, value in settings.items()}
        provider = HonchoProvider(session, environ=environ, home=tmp_path / home, query_rewriter=query_rewriter)
        provider.initialize()
        made.append(provider)
        return provider

    yield make
    for provider in made:
        provider.shutdown()
