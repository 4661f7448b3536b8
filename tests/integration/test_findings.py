"""Everything that `status` and `doctor` find wrong or worth knowing comes with advice that a person can follow."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.providers import MakeProvider

import honcho_exec
from honcho_exec.cli.main import main
from honcho_exec.errors import StateError
from honcho_exec.provider.doctor import diagnose
from honcho_exec.provider.status import Finding, Status, findings

PACKAGE = Path(honcho_exec.__file__).parent
COMMAND = re.compile(r"honcho-exec ((?:-v )?[a-z]+(?: (?:list|flush|redirect|retry|drop))?(?: --[a-z]+)*)")


def causes() -> set[str]:
    """Every cause that an error of this package can have."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.keyword(arg="cause", value=ast.Constant(value=str() as cause)):
                    found.add(cause)
                case ast.Assign(targets=[ast.Name(id="cause")], value=ast.Constant(value=str() as cause)):
                    found.add(cause)
    return found


def bad(**values: Any) -> Status:
    """A status of a provider that is well, save for `values`."""
    zeros: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "bool": True}
    known: dict[str, Any] = {field.name: zeros.get(str(field.type)) for field in fields(Status)}
    known |= {"breaker": "closed", "warnings": (), "findings": (), "recalled": (), "sdk_version": "1"}
    return Status(**(known | values))


CASES: dict[str, dict[str, Any]] = {
    **{f"problem: {cause}": {"problem": "it fails", "problem_cause": cause} for cause in sorted(causes())},
    "problem of another cause": {"problem": "it fails", "problem_cause": None},
    "parked": {"parked": 2},
    "stuck": {"pending": 1, "oldest_pending_age": 1e6},
    "failing elsewhere": {"pending": 1, "last_error": "no", "last_error_at": "2026-01-01T00:00:00+00:00"},
    "breaker": {"breaker": "open", "breaker_retry_in": 3.0},
    "kept": {"pending": 3, "reachable": False},
    "held": {"pending": 3, "held": 3},
    "unstored": {"pending": 3, "unstored": 3},
    "elsewhere": {"elsewhere": 3},
    "deriving": {"deriving": 7},
    "not deriving": {"backend": "server", "deriving": None, "latency": 0.1},
    "damaged": {"warnings": ("the outbox was damaged and is kept as x",)},
    "lost": {"warnings": ("x was removed while it was open; 3 rows that were pending in it are lost",)},
    "a warning": {"warnings": ("HONCHO_X is not a setting",)},
    "no SDK": {"sdk_version": ""},
    "everything": {
        "pending": 9, "held": 1, "unstored": 1, "elsewhere": 1, "parked": 1, "deriving": 1, "breaker": "half-open",
        "problem": "x", "problem_cause": "auth", "warnings": ("a", "b damaged"),
    },
}  # fmt: skip


def without_advice(found: tuple[Finding, ...]) -> list[str]:
    return [finding.what for finding in found if finding.level != "ok" and not finding.advice.strip()]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_every_finding_has_advice(values: dict[str, Any], make_provider: MakeProvider) -> None:
    status = bad(**values)
    found = findings(status)
    if "deriving" not in values and "sdk_version" not in values:
        assert found
    assert without_advice(found) == []
    provider = make_provider()
    conversation = provider._conversation
    assert conversation is not None
    conversation.reader.ping()
    with_doctor = diagnose(replace(status, findings=found, state=str(provider.home)), conversation)
    assert without_advice(with_doctor) == []
    for finding in with_doctor:
        check_commands(finding.advice)


def test_what_doctor_finds_on_the_disk_has_advice(make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make_provider(home="a folder")
    conversation = provider._conversation
    assert conversation is not None
    monkeypatch.setattr("honcho_exec.provider.doctor._LOW_SPACE_BYTES", 2**80)
    (provider.home / "outbox.db").chmod(0o644)

    def damaged() -> None:
        raise StateError("the outbox is damaged")

    monkeypatch.setattr(conversation.outbox.file, "check", damaged)
    found = diagnose(bad(state=str(provider.home)), conversation)
    assert sum(finding.level == "problem" for finding in found) == 3
    assert without_advice(found) == []
    (chmod,) = [finding.advice for finding in found if finding.advice.startswith("chmod")]
    assert Path(shlex.split(chmod)[-1]) == provider.home / "outbox.db"


def check_commands(advice: str) -> None:
    """The commands of ours in an advice exist, with the options that they are given."""
    for words in COMMAND.findall(advice):
        done = CliRunner().invoke(main, [*shlex.split(words), "--help"], prog_name="honcho-exec")
        assert done.exit_code == 0, (words, done.output)
