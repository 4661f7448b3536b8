from __future__ import annotations

import pytest

from honcho_exec.embedded.query.thesaurus import related_words


@pytest.mark.parametrize(
    ("asked", "said"), [("live", "moved"), ("job", "company"), ("wife", "married"), ("allergic", "intolerant")]
)
def test_a_question_reaches_the_words_of_its_answer(asked: str, said: str) -> None:
    assert said in related_words([asked])
    assert asked in related_words([said])


def test_related_words_exclude_the_query() -> None:
    assert not {"live", "moved"} & set(related_words(["live", "moved"]))
    assert related_words(["quaternion"]) == []
