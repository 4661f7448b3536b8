"""schemathesis looks for requests whose answers are not as Honcho's OpenAPI document has them.

It needs the `dev` extra, and takes half a minute: `pytest tests/integration/test_openapi.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks
from support.openapi import read

from honcho_exec.embedded import EmbeddedHoncho

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("HONCHO_CONTRACT_EXAMPLES", "25"))
ID_LIMITS = {"string_pattern_mismatch", "string_too_short", "string_too_long"}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.response_schema_conformance,
    checks.content_type_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
schema = schemathesis.openapi.from_dict(read())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    embedded = EmbeddedHoncho(tmp_path_factory.mktemp("contract") / "memory.db")
    yield embedded.app
    embedded.close()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_conforms_to_the_document(case: schemathesis.Case, app: Callable[..., Any]) -> None:
    answer = case.call(app=app)
    if answer.status_code == HTTPStatus.NOT_IMPLEMENTED:
        assert "not served by the embedded Honcho" in answer.json()["detail"]
        return
    wanted = [*CHECKS] if is_beyond_the_document(answer) else [*CHECKS, checks.positive_data_acceptance]
    case.validate_response(answer, checks=wanted, transport_kwargs={"app": app})


def is_beyond_the_document(answer: Any) -> bool:
    """Whether a request is refused for what the server refuses and the document does not tell.

    These are the ids in paths and of peers, what a filter may be, tokens that the tokenizer chokes on, and what an
    uploaded file and the JSON beside it may be.
    """
    if answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return True
    if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
        return False
    detail = answer.json()["detail"]
    text = " ".join(one["msg"] for one in detail)
    known = any(one["type"] in ID_LIMITS or "file" in one["loc"] for one in detail)
    return known or any(said in text for said in ("filter", "special token", "JSON object"))
