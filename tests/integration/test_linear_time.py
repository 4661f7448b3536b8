"""Every function that processes foreign text takes time in proportion to its length, whatever it says."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.providers import MakeProvider

from honcho_exec.cli import output as show
from honcho_exec.cli.hermes_home import dotenv_variables
from honcho_exec.conversation.tool_arguments import TOOLS, parse
from honcho_exec.embedded.query import sentences as extract
from honcho_exec.embedded.query import words
from honcho_exec.embedded.query.metadata import compares
from honcho_exec.embedded.wire import ApiError, parse_json
from honcho_exec.errors import HonchoExecError
from honcho_exec.net.failures import from_status
from honcho_exec.recall.cadence import is_trivial
from honcho_exec.recall.dialectic import ask
from honcho_exec.settings import Settings, names
from honcho_exec.text import budget as sections
from honcho_exec.text import cleaning as text
from honcho_exec.text import host_notices as machine_text
from honcho_exec.text import redaction as redact
from honcho_exec.text.neutralize import neutralize, without_thinking
from honcho_exec.text.purge_filter import PurgeFilter
from honcho_exec.transfer import sources as lines

pytestmark = pytest.mark.slow

SMALL, LARGE = 100_000, 200_000
UNCRITICAL_SECONDS = 0.05
LONGEST_SECONDS = 2.0
"""What one call may take for the large text; quadratic time is many times that."""
RATIO = 3.0
"""Twice the text may take so many times as long: twice is linear, four times is quadratic."""
ATTEMPTS = 5

TAG, END_TAG = "<memory-context>", "</memory-context>"
NOTE = "[System note: The following is recalled memory context,"
SAID = "The user has provided the following instruction alongside the skill invocation: "

OPENERS_AND_CLOSERS = [
    (NOTE, "]"),
    ("[", "]"),
    ("[System note:", "]"),
    (TAG, END_TAG),
    (f"{TAG}\n", f"{END_TAG}\n"),
    ("<think>", "</think>"),
    ("<think>\n", "</think>\n"),
    ("<", ">"),
    ("(", ")"),
    ("{", "}"),
    ("![a](", ")"),
    ("[a]: http://", " "),
    ('<img src="', '">'),
    ("\x1b]", "\x07"),
    ("\x1b[", "m"),
    ('{"a":', "}"),
    ('"', "'"),
    ("<memory-", "context>"),
]
REPEATED = [
    *(
        NOTE,
        "]",
        END_TAG,
        f" {END_TAG}",
        f"{END_TAG}\n",
        f"a{END_TAG} ",
        f"{TAG}a{END_TAG} ",
        f"\n   {TAG}",
        "<memory-context ",
    ),
    *(
        "</think>",
        " </think>",
        "</think>\n",
        "< ",
        "</ ",
        "<|",
        "<|endoftext|>",
        "|>",
        "<|im_start|>",
        "<a-",
        "<s",
        "</",
    ),
    *(
        "-eyJ",
        "eyJ",
        "eyJaaaaaaaaa.",
        "-eyJaaaaaaaaa.eyJaaaaaaaaa",
        "sk-",
        "sk-a1",
        "hf_",
        "SG.",
        "AKIA",
        "ya29.",
        ":AA",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----\n",
        "A: -----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN A A A A ",
        "-----END ",
        "A: b\n",
    ),
    *("password=", "password='", "password for a a a ", "token is ", "api_key: ", "bearer ", "authorization: bearer "),
    *(
        "://",
        "://a:",
        "http://a@",
        "https://a.b/c ",
        "a@b.c ",
        "a.",
        ".",
        "0",
        "1.",
        "a1",
        "aA1",
        "a",
        "A A ",
        "-",
        "_",
        "/",
    ),
    *(
        "```",
        "```tool",
        "`",
        "*",
        "#",
        "> ",
        "- ",
        "\n- ",
        "--- ",
        "--- END OF CONTEXT SUMMARY",
        "[CONTEXT SUMMARY]:",
        SAID,
    ),
    *(
        "\n",
        " ",
        "\t",
        "\x1c",
        "\n ",
        "\r\n",
        "\u00a0",
        "\u2028",
        '"',
        "'",
        "\\",
        "\\n",
        "\\u0041",
        "%25",
        "&amp;",
        "&#",
        "!",
    ),
    *(
        "\u200b",
        "\ufeff",
        "\U000e0041",
        "\u0301",
        "\u0301\u0316",
        "e\u0301",
        "\u0f73",
        "\u0344",
        "ﷺ",
        "ß",
        "İ",
        "가",
        "李",
        "。",
    ),
    *(
        "\ud800",
        "\x00",
        "\x1b",
        "\x9b",
        "😀",
        "system:",
        "\nsystem:",
        "\n  System :",
        "Observation:\n",
        "### Instruction:",
        "##",
    ),
    *(
        "yes ",
        "/a",
        "[a]\n\n",
        "[IMPORTANT: ",
        "[SYSTEM: You]\n\n",
        "\n§\n",
        "\n\n",
        "? ",
        ". ",
        "honcho ",
        "<bos>",
        "<message role=",
    ),
    *("![](", "![a][b]", "[a](", "[a](http://b", "<http://a", "<a href=", "<img ", "[a]:", "]("),
]
STARTS = [
    *(
        "",
        "x",
        TAG,
        f"{TAG}a{END_TAG} x",
        NOTE,
        "password='-----BEGIN PRIVATE KEY-----\n",
        "[CONTEXT SUMMARY]:",
        "[",
        "<",
    ),
    *('[IMPORTANT: The user has invoked the "a" skill bundle,', '[IMPORTANT: The "a" skill is auto-loaded.', "/a", '"'),
    *("[SYSTEM: Background process a ", "[ASYNC DELEGATION COMPLETE]\n", "![a](http://", "\x1b]", "HONCHO_A="),
]
FRAGMENTS = [*REPEATED, *STARTS, *(sign for pair in OPENERS_AND_CLOSERS for sign in pair)]


def repeated(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


def hostile(size: int) -> Iterator[tuple[str, str]]:
    """Hostile texts of about `size` characters, each with a name."""
    for number, unit in enumerate(REPEATED):
        yield repr(unit), repeated(unit, size) + "x" * (number % 2)
    for start in filter(None, STARTS):
        for unit in (" ", "[a]", f" {END_TAG}"):
            yield f"{start!r} {unit!r}", start + repeated(unit, size)
    for opener, closer in OPENERS_AND_CLOSERS:
        count = size // (len(opener) + len(closer))
        yield f"nested {opener!r} {closer!r}", opener * count + closer * count
        yield f"only {opener!r}", repeated(opener, size)
        yield f"only {closer!r}", repeated(closer, size)
        yield f"reversed {opener!r} {closer!r}", closer * count + opener * count
        yield f"blanks before {closer!r}", f"{opener}a{closer}{' ' * (size // 2)}x{repeated(closer, size // 2)}"
        yield f"blanks before {opener!r}", f"{opener}a{closer}{' ' * (size // 2)}x{repeated(opener, size // 2)}"


def composed(start: str, block: list[str], end: str, size: int) -> str:
    return start + repeated("".join(block), size) + end


def parse_tools(said: str) -> None:
    for kind, name in ((TOOLS["honcho_conclude"], "conclusion"), (TOOLS["honcho_conclude"], "delete_id")):
        with suppress(HonchoExecError):
            parse(kind, {name: said, said: said})
    with suppress(HonchoExecError):
        parse(TOOLS["honcho_profile"], {"card": [said]})


def read_json(said: str) -> None:
    with suppress(ApiError):
        parse_json(said.encode("utf-8", "surrogatepass"))


def compose(said: str) -> None:
    sections.compose([sections.Section("a", said), sections.Section("b", said, 1)], len(said) // 2)


def refuse(said: str) -> None:
    body = json.dumps({"detail": [{"loc": ["body", said], "type": said}]})
    from_status("here", httpx.Response(422, text=body))


def name(said: str) -> None:
    with suppress(HonchoExecError):
        names.safe_id(said)


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "clean": text.clean,
    "split": lambda said: text.split(said, 25_000),
    "split into many": lambda said: text.split(said, 100),
    "cut": lambda said: text.cut_at_word(said, len(said) - 1),
    "spoken": machine_text.spoken,
    "neutralize": neutralize,
    "without_thinking": without_thinking,
    "redact": redact.redact,
    "redact_json": lambda said: redact.redact_json({"password": said}),
    "compose": compose,
    "from_status": refuse,
    "is_trivial": is_trivial,
    "dialectic": lambda said: ask(lambda *_: said, Settings(), said, warm=True),
    "safe_id": name,
    "purge": lambda said: PurgeFilter(text="a" * 50 + "b").matches(said),
    "purge beside": lambda said: PurgeFilter(text=said).matches_metadata({"a": said}),
    "indexed": words.indexed,
    "match_expressions": words.match_expressions,
    "statements": extract.statements,
    "key_sentences": lambda said: extract.key_sentences([("ada", said)], 15),
    "extract.cut": lambda said: extract.cut(said, 240),
    "metadata": lambda said: compares({"a": said}, "a", {"icontains": said[: len(said) // 2]}),
    "arguments": parse_tools,
    "parse_json": read_json,
    "history": lambda said: list(lines._messages_of("", {"messages": [{"role": "user", "content": said}]})),
    "line": lambda said: lines._json(said.encode("utf-8", "replace")),
    "shown": lambda said: show.without_password(show.printable(said)),
}


def took(function: Callable[[str], object], said: str) -> float:
    start = time.thread_time()
    function(said)
    return time.thread_time() - start


def is_linear(function: Callable[[str], object], make: Callable[[int], str]) -> bool:
    """Whether the function is fast for a large text, and takes about twice as long as for one of half the size."""
    small, large = make(SMALL), make(LARGE)
    best_small = best_large = float("inf")
    for _ in range(ATTEMPTS):
        best_large = min(best_large, took(function, large))
        if best_large <= UNCRITICAL_SECONDS:
            return True
        best_small = min(best_small, took(function, small))
        if best_large <= min(LONGEST_SECONDS, RATIO * best_small):
            return True
    return False


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    """Collections of the garbage of the whole test run would be counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_hostile_text_takes_time_in_proportion(function: Callable[[str], object]) -> None:
    slow = [
        what
        for (what, small), (_, large) in zip(hostile(SMALL), hostile(LARGE), strict=True)
        if not is_linear(function, {SMALL: small, LARGE: large}.__getitem__)
    ]
    assert slow == []


fragments = st.sampled_from(FRAGMENTS)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["", *STARTS]), st.lists(fragments, min_size=1, max_size=6), fragments)
def test_random_text_of_fragments_takes_time_in_proportion(start: str, block: list[str], end: str) -> None:
    slow = [
        name
        for name, function in FUNCTIONS.items()
        if not is_linear(function, lambda size: composed(start, block, end, size))
    ]
    assert slow == []


def test_a_dotenv_file_is_read_in_time_in_proportion(tmp_path: Path) -> None:
    for start in ("HONCHO_A=", "HONCHO_A", 'HONCHO_A="', "HONCHO_A='", " "):
        for unit in (" ", "a ", "a   ", "\\", '\\"', "#", "export ", "HONCHO_A=\n"):

            def read(said: str) -> None:
                (tmp_path / ".env").write_text(said)
                dotenv_variables(str(tmp_path))

            assert is_linear(read, lambda size, start=start, unit=unit: f"{start}{repeated(unit, size)}x")


PATH = [
    ("nested notes", lambda size: NOTE * (size // len(NOTE) // 2) + "]" * (size // 2)),
    ("web tokens", lambda size: repeated("-eyJ", size)),
    ("closing tags", lambda size: f"{TAG}a{END_TAG}{' ' * (size // 2)}x{repeated(END_TAG, size // 2)}"),
    ("marks", lambda size: repeated("\u0301\u0316", size)),
    ("han", lambda size: repeated("李", size)),
    ("one word", lambda size: repeated("a", size)),
    ("blanks", lambda size: f"a{' ' * size}b"),
    ("images", lambda size: repeated("![a](http://b", size)),
]


@pytest.mark.parametrize(("what", "make"), PATH, ids=[what for what, _ in PATH])
def test_a_turn_is_delivered_and_recalled_in_time_in_proportion(
    make_provider: MakeProvider, what: str, make: Callable[[int], str]
) -> None:
    provider = make_provider()

    def turn(said: str) -> None:
        provider.sync_turn(said, said).result(30)
        provider.prefetch(said)
        provider.queue_prefetch(said)
        for tool, args in (
            ("honcho_search", {"query": said[-10_000:]}),
            ("honcho_context", {}),
            ("honcho_conclude", {"list": True, "query": said[-10_000:]}),
        ):
            assert "error" not in json.loads(provider.handle_tool_call(tool, args)), what

    def spent(size: int) -> float:
        start = time.process_time()
        turn(make(size))
        return time.process_time() - start

    turn("hello")
    small, large = min(spent(SMALL) for _ in range(2)), min(spent(LARGE) for _ in range(2))
    # What was stored before is searched too, so that a later turn may take a little longer.
    assert large < max(4 * small, 2.0), f"{small:.2f} s, {large:.2f} s"
    assert large < 10
