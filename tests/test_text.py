from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.text import CONTINUED, clean, cut_at_word, plain_text, split

any_text = st.text(
    st.characters(exclude_categories=()) | st.sampled_from([" ", "\n", ".", "<", "|", ">", "\x00", "\ud800"])
)
pieces = st.lists(
    st.sampled_from(
        ["<|endof", "text|>", "<|fim_prefix|>", "<memory-context>", "</memory-context>", "\x00", "a b", "\n", "\udfff"]
    )
).map("".join)


@given(any_text | pieces)
def test_cleaned_text_is_what_honcho_takes(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    for token in ("endoftext", "endofprompt", "fim_prefix", "fim_middle", "fim_suffix"):
        assert f"<|{token}|>" not in cleaned


@given(any_text | pieces)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<\x00")).map(str.strip))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert clean(text) == text


def test_what_is_said_around_leaked_memory_is_kept() -> None:
    leak = (
        "<memory-context>\n[System note: The following is recalled memory context, NOT new.]\nsecret\n</memory-context>"
    )
    assert clean(f"before {leak} after") == "before  after"
    assert clean("asked\n<memory-context>\n[System note: The following is recalled\nsecret") == "asked"
    assert clean("what does <memory-context> mean?") == "what does <memory-context> mean?"


def test_a_special_token_stays_readable() -> None:
    assert clean("The <|endoftext|> token") == "The <\u200b|endoftext|> token"


@given(any_text.map(clean), st.integers(100, 400))
def test_the_parts_are_the_text_to_the_letter(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(len(part) <= limit for part in parts)
    assert all(part.strip() for part in parts)
    assert "".join(part if place == 0 else part.removeprefix(CONTINUED) for place, part in enumerate(parts)) == text


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a" * 60 + "\n\n" + "b" * 60, "a" * 60 + "\n\n"),
        ("a" * 60 + ". " + "b" * 60, "a" * 60 + ". "),
        ("a" * 60 + " " + "b" * 60, "a" * 60 + " "),
        ("a" * 120, "a" * 100),
    ],
)
def test_cuts_fall_at_paragraph_sentence_word_or_anywhere(text: str, first: str) -> None:
    assert split(text, 100)[0] == first


def test_a_cut_answer_ends_at_a_word() -> None:
    assert cut_at_word("one two three", 9) == "one two…"
    assert cut_at_word("one two", 9) == "one two"
    assert cut_at_word("onetwothree", 5) == "onet…"
    assert cut_at_word("onetwothree", 1) == ""


def test_content_may_be_text_parts_or_nothing() -> None:
    assert plain_text(None) == ""
    assert plain_text([{"type": "text", "text": "a"}, {"type": "image_url"}, "b"]) == "a\nb"
    assert plain_text(5) is None
