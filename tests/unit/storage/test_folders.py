"""The state folder is private, and what cannot be used safely is refused with instructions."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.errors import StateError
from honcho_exec.storage.database import Database

FILES = ("outbox.db", "memory.db", "known.db", "recall.db")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def short_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The path of a socket is at most 107 characters long.
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def watched() -> Iterator[None]:
    """End the test run where something waits for ever."""
    watch = threading.Timer(60, os._exit, (9,))
    watch.start()
    yield
    watch.cancel()
    watch.join()


def used(home: Path) -> None:
    """Leave the state of an earlier run."""
    with HonchoProvider("s1", environ={"HOME": str(home.parent)}, home=home) as provider:
        provider.sync_turn("before", "").result(10)
        provider.prefetch("what?")


def modes(home: Path) -> set[str]:
    return {
        f"{path.name} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in (home, *home.rglob("*"))
        if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }


def test_an_open_folder_and_open_files_are_restricted(home: Path, make_provider: MakeProvider) -> None:
    used(home)
    (home / "outbox.db.damaged-20260101T000000").write_text("")
    for path in (home, *home.rglob("*")):
        path.chmod(0o777)
    provider = make_provider()
    provider.sync_turn("after", "").result(10)
    assert modes(home) == set()


def answers(provider: HonchoProvider) -> list[str]:
    """What a provider that cannot use its state says, wherever it is asked."""
    futures = [provider.sync_turn("a", "b"), provider.on_memory_write("add", "user", "x")]
    errors = [future.exception(5) for future in futures]
    assert all(isinstance(error, StateError) for error in errors)
    tools = [
        provider.handle_tool_call(schema["name"], {"query": "x", "conclusion": "x"})
        for schema in provider.get_tool_schemas()
    ]
    assert len(tools) == 5
    return [*map(str, errors), *tools, str(provider.status().problem), repr(provider)]


def test_a_folder_that_everybody_may_change_is_refused_with_instructions(
    home: Path, make_provider: MakeProvider
) -> None:
    home.mkdir()
    # Like /tmp, which must not be restricted.
    home.chmod(0o1777)
    provider = make_provider()
    assert all(f"run chmod o-w {home}" in said and "HONCHO_EXEC_HOME" in said for said in answers(provider))
    assert stat.S_IMODE(home.stat().st_mode) == 0o1777
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", [*FILES, "outbox.db-wal", "outbox.spill"])
def test_a_file_of_another_user_that_everybody_may_change_is_refused(
    home: Path, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    used(home)
    (home / name).touch()
    (home / name).chmod(0o666)
    # Nothing here is this user's any more.
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    provider = make_provider()
    assert all(f"run chmod o-w {home / name}" in said for said in answers(provider))


def test_the_folder_of_another_user_is_used_and_reported(
    home: Path, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(home)
    home.chmod(0o770)
    (home / "memory.db").chmod(0o660)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    provider = make_provider()
    provider.sync_turn("after", "").result(10)
    status = provider.status()
    assert status.ok
    for found in (status.findings, provider.doctor()):
        said = [finding.what for finding in found if finding.level == "note"]
        assert f"{home} belongs to user {os.getuid()}" in said
        assert f"{home} can be changed by group {os.getgid()} (mode 770)" in said
        assert f"{home / 'memory.db'} can be changed by group {os.getgid()} (mode 660)" in said


def test_a_file_system_that_keeps_no_modes_is_used_and_reported(
    home: Path, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        file = real(path, flags, mode, **options)
        if flags & os.O_CREAT and Path(path).is_relative_to(home):
            os.fchmod(file, 0o777)
        return file

    home.mkdir()
    home.chmod(0o777)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
    provider = make_provider()
    provider.sync_turn("one", "").result(10)
    assert provider.status().ok
    assert any("keeps no modes" in finding.what for finding in provider.doctor())


@pytest.mark.parametrize("name", ["a" * 300, "nul\0", "file/below"], ids=["long", "nul", "below a file"])
def test_a_folder_that_cannot_be_looked_at_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    provider = HonchoProvider("s1", environ={"HOME": str(tmp_path)}, home=tmp_path / name)
    provider.initialize("run")
    assert "StateError" in repr(provider.sync_turn("lost", "").exception(10))
    status = provider.status()
    assert not status.ok
    assert "cannot be used" in str(status.problem)
    assert any(finding.what == status.problem for finding in provider.doctor())


def test_a_refused_folder_is_not_said_to_have_no_modes(
    home: Path, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    home.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    provider = make_provider()
    assert "run chmod o-w" in str(provider.status().problem)
    assert not [finding.what for finding in provider.doctor() if "keeps no modes" in finding.what]


def link_to_file(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere") / "x")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_directory(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path.relative_to(Path.cwd())))


ODD: list[tuple[Callable[[Path], None], str]] = [
    (link_to_file, "symbolic link"),
    (dangling_link, "symbolic link"),
    (loop, "symbolic link"),
    (link_to_directory, "symbolic link"),
    (directory, "directory"),
    (fifo, "named pipe"),
    (unix_socket, "socket"),
]


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("make", "what"), ODD)
def test_what_is_no_regular_file_is_refused_at_once(
    home: Path, make_provider: MakeProvider, name: str, make: Callable[[Path], None], what: str
) -> None:
    used(home)
    make(home / name)
    provider = make_provider()
    for said in answers(provider):
        assert f"{home / name} cannot be used: it is a {what}" in said
    provider.doctor()


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize(("make", "what"), ODD)
def test_a_database_refuses_what_is_no_regular_file(
    tmp_path: Path, suffix: str, make: Callable[[Path], None], what: str
) -> None:
    Database(tmp_path / "t.db", ()).close()
    (tmp_path / f"t.db{suffix}").touch()
    make(tmp_path / f"t.db{suffix}")
    with pytest.raises(StateError, match=f"t.db{suffix} cannot be used: it is a {what}"):
        Database(tmp_path / "t.db", ())


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", ["outbox.db.replacing", "outbox.spill"])
def test_a_pipe_in_the_place_of_another_file_is_refused(home: Path, make_provider: MakeProvider, name: str) -> None:
    home.mkdir()
    os.mkfifo(home / name)
    provider = make_provider()
    assert all(f"{home / name} cannot be used: it is a named pipe" in said for said in answers(provider))


@pytest.mark.usefixtures("watched")
def test_a_file_that_becomes_a_link_while_it_is_open_is_refused(home: Path, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url="http://127.0.0.1:9")
    provider.sync_turn("one", "")
    link_to_file(home / "outbox.db")
    error = provider.sync_turn("two", "").exception(5)
    assert "symbolic link" in str(error)


def test_a_linked_state_folder_works(home: Path, make_provider: MakeProvider) -> None:
    used(home)
    home.rename(home.with_name("elsewhere"))
    home.symlink_to("elsewhere")
    home.with_name("elsewhere").chmod(0o755)
    provider = make_provider()
    provider.sync_turn("after", "").result(10)
    assert [hit.content for hit in provider.search("before")] == ["before", "after"]
    assert provider.status().ok
    assert modes(home.with_name("elsewhere")) == set()
    shutil.rmtree(home.with_name("elsewhere"), ignore_errors=True)
