"""`hermes doctor` looks at much more than memory, and takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Host


def test_the_hosts_doctor_finds_it_well(host: Host) -> None:
    assert "honcho_exec provider active" in host.hermes("doctor")
