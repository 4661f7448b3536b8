from __future__ import annotations

from pathlib import Path

import pytest
from support.faulty import FaultyServer, status

from honcho_exec.client.backend import open_backend
from honcho_exec.client.rest import RawApi
from honcho_exec.clock import SystemClock
from honcho_exec.errors import Rejected
from honcho_exec.settings import Settings


def test_a_refusal_is_reported_without_the_text_of_the_server(server: FaultyServer, tmp_path: Path) -> None:
    server.rule(fault=status(422, body=b'{"detail": "too bitter: tea in Kyoto"}'))
    backend = open_backend(Settings(base_url=server.url), tmp_path, SystemClock())
    with pytest.raises(Rejected, match=r"refused the request \(422\)$") as caught:
        RawApi(backend).request("POST", "/v3/workspaces", {"content": "I had tea in Kyoto"})
    assert "Kyoto" not in str(caught.value)
    backend.close()
