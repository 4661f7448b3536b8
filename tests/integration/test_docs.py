"""The documentation agrees with the code, and its links have targets."""

from __future__ import annotations

import configparser
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def load_tool(script: str) -> ModuleType:
    """Import a script of docs/tools."""
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / "tools" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


def test_settings_page_matches_the_declarations() -> None:
    maker = load_tool("make_settings")
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python docs/tools/make_settings.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_have_targets(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link[0].startswith(("http://", "https://"))]
    assert [link for link, anchor in local if not has_target(page.parent / link if link else page, anchor)] == []


def has_target(path: Path, anchor: str) -> bool:
    if not anchor:
        return path.exists()
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    named = set(re.findall(r"\b(test_\w+)\b", page.read_text(encoding="utf-8")))
    files = list((ROOT / "tests").rglob("test_*.py"))
    known = {path.stem for path in files}
    for path in files:
        known |= set(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    assert named - known == set()


def test_design_names_every_folder_and_top_level_module() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    package = ROOT / "honcho_exec"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {name for name in folders | modules if name not in design} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_exist(page: Path) -> None:
    named = re.findall(r"`([\w/]+/\w+\.py)", page.read_text(encoding="utf-8"))
    folders = (ROOT, ROOT / "honcho_exec")
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_example_of_the_readme_is_tested() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tested = (ROOT / "tests" / "integration" / "test_promises.py").read_text(encoding="utf-8").replace("'", '"')
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    for line in filter(None, example.splitlines()):
        assert line.strip() in tested


def test_every_dependency_is_listed_with_its_range() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = [line.split() for line in setup["options"]["install_requires"].split("\n") if line]
    assert [name for name, bounds in required if f"| {name} | `{bounds}` |" not in page] == []
    extras = "\n".join(setup["options.extras_require"].values())
    assert [name for name in re.findall(r"^[\w-]+", extras, re.MULTILINE) if name not in page] == []


def test_figures_of_the_readme_are_in_the_benchmarks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    figures = re.findall(r"^\| .*?(\| [\d.,]+(?: ms)? \| [\d.,]+(?: ms)? \|)$", readme, re.MULTILINE)
    assert figures
    assert [pair for pair in figures if pair not in benchmarks] == []
