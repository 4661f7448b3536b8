"""Leaves out the tests whose packages are not installed, and says so."""

from __future__ import annotations

from importlib.util import find_spec

# The folder or module, and the package that it needs.
_NEEDS = {"hermes": "agent", "test_openapi.py": "schemathesis"}
collect_ignore = [path for path, package in _NEEDS.items() if find_spec(package) is None]


def pytest_report_header() -> list[str]:
    return [f"not collected, {_NEEDS[path]!r} is not installed: tests/integration/{path}" for path in collect_ignore]
