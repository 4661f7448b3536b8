"""On a full disk delivery goes on, exactly once, and everything resumes when there is space."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty import FaultyServer
from support.processes import Victim, messages_on
from support.providers import MakeProvider

from honcho_exec.errors import StateError

MOUNT, UMOUNT = shutil.which("mount") or "/bin/mount", shutil.which("umount") or "/bin/umount"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The state folder, on a small file system of its own if one can be mounted."""
    home = tmp_path / "state"
    home.mkdir(mode=0o700)
    command = [MOUNT, "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(home)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    yield home
    if mounted:
        subprocess.run([UMOUNT, "--lazy", str(home)], check=True)


def fill(home: Path) -> Path | None:
    """Leave not one byte on the file system of the state; None if it is not a small one."""
    if not home.is_mount():
        return None
    filler, size = home / "filler", 1024 * 1024
    with filler.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


@pytest.mark.parametrize("size", [20, 4_000])
def test_pending_rows_are_delivered_on_a_full_file_system_and_everything_resumes(
    server: FaultyServer, make_provider: MakeProvider, home: Path, size: int
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", retry_attempts=1)
    provider.sync_turn("before", "").result(10)
    server.stop()
    texts = [f"{number} {'x' * size}" for number in range(400)]
    for text in texts:
        provider.sync_turn(text, "")
    assert provider.flush(1) == 400
    filler = fill(home)
    for number in range(200):
        text = f"more {number} {'x' * 2_000}"
        future = provider.sync_turn(text, "")
        if not (future.done() and isinstance(future.exception(), StateError)):
            texts.append(text)
    assert filler is None or len(texts) < 600
    server.start()
    assert provider.flush(30) == 0
    assert messages_on(server.url, "s1") == ["before", *texts]
    if filler is not None:
        filler.unlink()
    provider.sync_turn("after", "").result(40)
    assert messages_on(server.url, "s1") == ["before", *texts, "after"]
    assert provider.status().ok


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_accepted_turns_arrive_once_when_files_can_grow_again(
    server: FaultyServer, tmp_path: Path, killed: bool
) -> None:
    """Without a file system of its own: for a while the process may make no file larger than the outbox's are."""
    home, settings = tmp_path / "state", {"base_url": server.url, "recall_mode": "tools", "retry_attempts": 1}
    with Victim(home, "said", **settings) as victim:
        victim.hear("ready")
        server.stop()
        victim.give(*(f"{number} {'x' * 4_000}" for number in range(300)))
        victim.order("flush", 1)
        assert victim.hear("left") == [300]
        largest = max((home / name).stat().st_size for name in ("outbox.db", "outbox.db-wal"))
        soft, hard = resource.prlimit(victim.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (largest, hard))
        victim.order("turn", *(f"more {number} {'x' * 4_000}" for number in range(700)))
        victim.order("flush", 0)
        assert victim.hear("left", 60)[0] < 1000
        server.start()
        if killed:
            victim.kill()
        else:
            victim.order("flush", 3)
            victim.hear("left", 60)
            resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (soft, hard))
            victim.order("flush", 45)
            assert victim.hear("left", 60) == [0]
            assert messages_on(server.url, "said") == victim.accepted
    with Victim(home, "said", **settings) as later:
        later.hear("ready")
        later.give("after")
        later.order("flush", 30)
        assert later.hear("left", 60) == [0]
    assert messages_on(server.url, "said") == [*victim.accepted, "after"]


def test_space_is_reserved_only_while_rows_are_pending(
    server: FaultyServer, make_provider: MakeProvider, tmp_path: Path
) -> None:
    provider = make_provider(base_url=server.url, recall_mode="tools", retry_attempts=1)
    provider.sync_turn("before", "").result(10)
    reserve = tmp_path / "state" / "outbox.reserve"
    assert not reserve.exists()
    server.stop()
    provider.sync_turn("one", "").exception(10)
    provider.flush(0.1)
    assert reserve.stat().st_blocks * 512 >= 8 * 1024 * 1024
    server.start()
    assert provider.flush(20) == 0
    provider.shutdown()
    assert not reserve.exists()
