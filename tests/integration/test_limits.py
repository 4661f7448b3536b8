"""What Honcho would refuse is refused before it is stored, and no header makes an answer that is not JSON."""

from __future__ import annotations

import json

import pytest
from support.faulty import FaultyServer, status
from support.providers import MakeProvider

from honcho_exec.errors import InputError


def strict(answer: str) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    parsed: dict[str, object] = json.loads(answer, parse_constant=refuse)
    return parsed


@pytest.mark.parametrize("text", ["word " * 9_000, "李" * 3_000, "😀" * 2_049, "x" * 8_193])
def test_a_conclusion_that_is_too_long_is_not_stored(make_provider: MakeProvider, text: str) -> None:
    provider = make_provider(base_url="http://127.0.0.1:9", sync_join_timeout=0.1, shutdown_timeout=0.1)
    answer = strict(provider.handle_tool_call("honcho_conclude", {"conclusion": text}))
    assert "at most 8,192" in str(answer["error"])
    assert (answer["retryable"], answer["cause"]) == (False, "argument")
    with pytest.raises(InputError, match="at most 8,192"):
        provider.on_memory_write("add", "user", text).result(1)
    assert (provider.status().pending, provider.status().parked) == (0, 0)


def test_the_longest_conclusion_is_kept(make_provider: MakeProvider) -> None:
    answer = strict(make_provider().handle_tool_call("honcho_conclude", {"conclusion": "x" * 8_192}))
    assert "error" not in answer


def test_metadata_with_too_many_entries_is_not_stored(make_provider: MakeProvider) -> None:
    provider = make_provider()
    with pytest.raises(InputError, match="at most 90 entries"):
        provider.remember("s", "user", "x", metadata={f"k{number}": number for number in range(91)})
    most = {f"k{number}": number for number in range(90)}
    assert provider.remember("s", "user", "x " * 13_000, metadata=most, source_key="a").result(20).written == 2
    assert (provider.status().pending, provider.status().parked) == (0, 0)


WAITS = [
    *("inf", "-inf", "Infinity", "nan", "-5", "1e400", "1e308", "9" * 400, "soon", "1, 2", "0x10"),
    *(
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "31 Dec 99999",
    ),
]


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("wait", WAITS)
def test_any_wait_that_a_server_asks_for_gives_a_finite_one(
    server: FaultyServer, make_provider: MakeProvider, code: int, wait: str
) -> None:
    provider = make_provider(base_url=server.url, retry_attempts=1, sync_join_timeout=2)
    provider.sync_turn("hello", "hi").result(20)
    server.rule(match=("POST", "."), fault=status(code, {"Retry-After": wait}))
    server.rule(match=("GET", "."), fault=status(code, {"Retry-After": wait}))
    for tool, args in (("honcho_search", {"query": "x"}), ("honcho_conclude", {"conclusion": "likes tea"})):
        answer = strict(provider.handle_tool_call(tool, args))
        assert answer["retryable"] is True
        assert 1 <= float(str(answer["retry_after"])) <= 86_400
    assert provider.shutdown(0.1) == 1
