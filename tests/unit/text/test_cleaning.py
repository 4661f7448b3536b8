from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.text.cleaning import CONTINUED, clean, cut_at_word, plain_text, split

any_text = st.text(
    st.characters(exclude_categories=()) | st.sampled_from([" ", "\n", ".", "<", "|", ">", "\x00", "\ud800"])
)
pieces = st.lists(
    st.sampled_from(
        [
            *("<|endof", "text|>", "<|fim_prefix|>", "<memory-", "<memory-context>", "<Memory-Context id=1>"),
            *("</memory-context>", "[System note:", "\x00", "a b", "\n", " ", "\x1c", "\ud83d", "\udfff"),
        ]
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


def test_a_surrogate_pair_is_its_character_and_a_lone_one_is_replaced() -> None:
    assert clean("\ud83d\ude00 and \ud83d, \ude00\ud83d") == "😀 and \ufffd, \ufffd\ufffd"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('<memory-context source="honcho">\nsecret\n</memory-context>\nHello', "Hello"),
        ("<MEMORY-Context>secret</Memory-Context > Hello", "Hello"),
        ("  <memory-context>a<memory-context>b</memory-context>c</memory-context> Hello", "Hello"),
        ("Hi <memory-context>\na\n<memory-context>\nb\n</memory-context>\nc\n</memory-context> Hello", "Hi  Hello"),
        ("<memory-context>\na\n</memory-context>\n</memory-context>\nHello", "Hello"),
        ("<memory-context>\nasks what <memory-context> is\n</memory-context>\nHello", "Hello"),
        ("Hi <memory-context> [System note: secret", "Hi"),
        ("Hi\r\n<memory-context>secret</memory-context> Hello", "Hi\r\n Hello"),
    ],
)
def test_leaked_memory_goes_whole(said: str, kept: str) -> None:
    assert clean(said) == kept


@pytest.mark.parametrize(
    "said",
    [
        "How do I close a <memory-context> tag? With </memory-context> of course.",
        "What is <memory-context id=1>?\nAnd </memory-context>?",
        "<memory-context> is a tag",
        "<memory-contexts>x</memory-contexts>",
    ],
)
def test_what_a_person_says_of_the_tags_is_kept(said: str) -> None:
    assert clean(said) == said


def test_many_tags_are_cleaned_in_little_time() -> None:
    start = time.monotonic()
    for said in ("<memory-context>\n", "<memory-context>a</memory-context> ", "a </memory-context> <memory-context> "):
        clean(said * 10_000)
    assert time.monotonic() - start < 2
