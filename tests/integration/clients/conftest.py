"""A served Honcho for the official clients of other languages and of the command line, installed as anybody would.

They are not among the tests of the README's command, because they need the package registries (and npm):
`pytest tests/integration/clients`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import Served, start_serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = start_serving(tmp_path / "state", HONCHO_SERVE_KEY="a-key-of-mine")
    yield served
    served.process.kill()
    served.process.communicate()
