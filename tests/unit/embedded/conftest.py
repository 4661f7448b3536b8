from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from honcho import Honcho
from support.hand_clock import HandClock

from honcho_exec.embedded import EmbeddedHoncho


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def embedded(tmp_path: Path, clock: HandClock) -> Iterator[EmbeddedHoncho]:
    embedded = EmbeddedHoncho(tmp_path / "memory.db", clock=clock)
    yield embedded
    embedded.close()


@pytest.fixture
def http(embedded: EmbeddedHoncho) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.WSGITransport(app=embedded.app), base_url="http://embedded") as client:
        yield client


@pytest.fixture
def sdk(http: httpx.Client) -> Callable[[str], Honcho]:
    def connect(workspace: str) -> Honcho:
        return Honcho(
            base_url="http://embedded", api_key="none", workspace_id=workspace, http_client=http, max_retries=0
        )

    return connect


@pytest.fixture
def honcho(sdk: Callable[[str], Honcho]) -> Honcho:
    return sdk("home")
