from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from honcho_exec.text.budget import Section, compose

SUMMARY = Section("Summary", "They spoke of tea. They spoke of boats. " * 10, rank=2)
CARD = Section("Card", "Name: Ada\nTown: Lisbon", rank=0)
KNOWN = Section("Known", "\n".join(f"- fact number {number}" for number in range(30)), rank=1)


def test_without_a_budget_everything_is_there_in_its_order() -> None:
    text = compose([SUMMARY, CARD, Section("Empty", ""), KNOWN], None)
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## Summary", "## Card", "## Known"]
    assert text.endswith("- fact number 29")


def test_whole_sections_go_before_a_sentence_is_cut() -> None:
    assert compose([SUMMARY, CARD, KNOWN], 650).startswith("## Card\n")
    assert compose([SUMMARY, CARD, KNOWN], 650).endswith("- fact number 29")
    assert compose([SUMMARY, CARD], 60) == "## Card\nName: Ada\nTown: Lisbon"


def test_a_section_that_does_not_fit_ends_with_a_whole_line_or_sentence() -> None:
    text = compose([KNOWN], 200)
    assert 150 < len(text) <= 200
    assert set(text.removesuffix(" …").splitlines()[1:]) <= set(KNOWN.text.splitlines())
    assert compose([SUMMARY], 200).endswith(". …") or compose([SUMMARY], 200).endswith("tea. …")


def test_a_single_sentence_that_does_not_fit_is_cut_at_a_word() -> None:
    text = compose([Section("Known", "one unending sentence " * 50)], 100)
    assert len(text) <= 100
    assert text.endswith("…")
    assert text.removesuffix("…").split()[-1] in {"one", "unending", "sentence"}


def test_a_title_alone_says_nothing() -> None:
    assert compose([CARD], 20) == ""
    assert compose([CARD], 25) == "## Card\nName: Ada\nTown:…"


@given(
    st.lists(st.builds(Section, st.just("T"), st.text(alphabet="ab .\n", max_size=400), st.integers(0, 4)), max_size=5),
    st.integers(0, 900),
)
def test_the_budget_holds(sections: list[Section], room: int) -> None:
    text = compose(sections, room)
    assert len(text) <= room
    whole = compose(sections, None)
    assert (text == whole) or len(whole) > room
