"""The page of the side-by-side benchmark is what was measured, and the script still runs for both providers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from support.paths import TOOLS


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("side_by_side_page", TOOLS / "side_by_side_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_its_plot_show_what_was_measured(maker: ModuleType) -> None:
    result = json.loads((maker.DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    assert {row["scenario"] for row in result["rows"]} == set(maker.TITLES)
    assert (maker.DOCS / "benchmarks.md").read_text(encoding="utf-8") == maker.page(result)
    svg = (maker.DOCS / "benchmarks.svg").read_text(encoding="utf-8")
    assert svg == maker.plot(result["rows"])
    ET.fromstring(svg)  # noqa: S314 - our own file


@pytest.mark.parametrize(("ours", "bundled", "verdict"), [(1, 3, "ours"), (3, 1, "bundled"), (None, 1, "bundled")])
def test_where_the_other_does_better_is_said(
    maker: ModuleType, ours: float | None, bundled: float, verdict: str
) -> None:
    rows = [{"scenario": "exit", "what": "exit with shutdown", "unit": "s", "ours": ours, "bundled": bundled}]
    section = maker.page(
        {
            "machine": json.loads((maker.DOCS / "benchmarks.json").read_text(encoding="utf-8"))["machine"],
            "seconds": 1,
            "rows": rows,
        }
    ).partition("bundled provider does better\n")[2]
    assert ("- The end of the process: exit with shutdown" in section) is (verdict == "bundled")


def test_every_reason_is_for_something_that_is_measured(maker: ModuleType) -> None:
    rows = json.loads((maker.DOCS / "benchmarks.json").read_text(encoding="utf-8"))["rows"]
    for scenario, what in maker.REASONS:
        assert any(row["scenario"] == scenario and row["what"].startswith(what) for row in rows), what


def script(*arguments: object, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, str(TOOLS / "side_by_side.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.host
def test_the_script_runs_for_both_providers(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = script("--quick", "--only", "requests", "--json", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    (row,) = found["rows"]
    assert row["what"] == "requests a turn"
    assert row["ours"] >= 1
    assert row["bundled"] >= 1
    assert found["not_measured"] == []


@pytest.mark.host
def test_at_the_limit_it_ends_and_says_what_was_not_measured() -> None:
    done = script("--only", "exit", "sessions", "--limit", "0.5", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["not_measured"]) == ([], ["exit", "sessions"])
    assert "not measured: exit, sessions" in done.stderr


def test_without_the_host_it_says_what_is_missing() -> None:
    done = script(flags=("-S",))
    assert done.returncode == 1
    assert done.stderr.startswith("hermes-agent")
    assert "pip install" in done.stderr
