from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.net.error_text import server_words

SECRET = "my locker's code is hunter2, «schloß» 我喜欢绿茶"
SENT = json.dumps({"messages": [{"content": SECRET, "peer_id": "ada", "metadata": {"note": "wisteria"}}]}).encode()
TELLING = ["locker", "code", "hunter2", "schlo", "我喜", "绿茶", "wisteria", "72756e"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["loc", "msg", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        SECRET.upper(),
        repr(SECRET),
        json.dumps(SECRET),
        json.dumps(json.dumps({"content": SECRET})),
        json.dumps(SECRET, ensure_ascii=False),
        html.escape(SECRET),
        quote(SECRET),
        SECRET[:17] + "...",
        "…" + SECRET[26:],
        SECRET.replace(" ", "_"),
        f"x{SECRET}x",
        "hunter2",
        "bad word: hunt",
        "\\u0068unter2",
        "wisteria",
        "".join(f"\\u{ord(one):04x}" for one in SECRET),
    ],
)
def test_what_was_sent_does_not_come_back(echo: str) -> None:
    for detail in (f"refused: '{echo}'", [{"loc": ["body", echo], "msg": f"Value error, {echo}", "input": echo}], echo):
        words = server_words(detail, SENT).casefold()
        assert [telling for telling in TELLING if telling in words] == []
        assert "hunt" not in words


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ("Message content exceeds the limit of 25000 characters", None),
        ("peer ada not found", None),
        ("API key is not permitted in workspace w1", None),
        (
            [{"loc": ["body", "messages", 0, "peer_id"], "msg": "Field required"}],
            "body.messages.0.peer_id: Field required",
        ),
        ([{"loc": 5, "msg": ["x"]}, "x", None], "5:"),
        ([{"msg": "Field required"}], ": Field required"),
        ("my locker stays shut", "… stays shut"),
        (None, ""),
        ({"reason": "x"}, ""),
        ("x" * 1000, "x" * 200),
    ],
)
def test_what_the_server_says_itself_stays(detail: object, words: str | None) -> None:
    assert server_words(detail, SENT) == (detail if words is None else words)


@given(JSON, st.binary(max_size=20))
def test_any_detail_gives_words(detail: object, sent: bytes) -> None:
    assert len(server_words(detail, sent)) <= 200
