from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.errors import Ambiguous, Rejected, RequestError
from honcho_exec.net.failures import from_status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["loc", "msg", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def refused(detail: object, status: int = 422) -> RequestError:
    return from_status("http://h", httpx.Response(status, json={"detail": detail}))


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ([{"loc": ["body", "messages", 0, "peer_id"], "type": "missing"}], ": body.messages.0.peer_id (missing)"),
        ([{"loc": ["body", "x"], "type": "a"}, {"loc": ["query"], "type": "b"}], ": body.x (a); query (b)"),
        ([{"loc": ["body", "my Secret", "x"], "msg": "My secret", "type": "my secret"}], ": body.?.x (?)"),
        ([{"loc": ["body", "metadata", "secret"], "type": "int_type"}], ": body.metadata (int_type)"),
        ([{"loc": 5, "msg": ["x"]}, "x", None], ": ? (?)"),
        ("my secret", ""),
        ({"reason": "my secret"}, ""),
        ([], ""),
    ],
)
def test_a_refusal_names_fields_and_error_types_and_quotes_nothing(detail: object, shown: str) -> None:
    error = refused(detail)
    assert isinstance(error, Rejected)
    assert str(error) == f"http://h refused the request (422){shown}"


@given(JSON)
def test_any_detail_can_be_classified(detail: object) -> None:
    assert refused(detail).by_honcho
    assert refused(detail, 404).cause == "not_found"
    assert isinstance(refused(detail, 500), Ambiguous)


def test_a_refusal_in_another_form_asks_for_the_address() -> None:
    error = from_status("http://h", httpx.Response(404, text="<html>my secret</html>"))
    assert str(error).endswith("(404): this does not look like a Honcho server, is HONCHO_BASE_URL right?")
    assert not error.by_honcho
