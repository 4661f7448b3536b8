"""Obvious secrets are masked wherever they would be stored or sent, and nothing else is touched."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.faulty import FaultyServer
from support.providers import MakeProvider

from honcho_exec import HonchoProvider
from honcho_exec.model import Receipt
from honcho_exec.settings import Settings
from honcho_exec.text.messages import as_messages
from honcho_exec.text.redaction import MASK, redact, redact_json, redact_key, secrets

# Made up, or the examples of the providers' own documentation; put together so that nobody's scanner finds them here.
KEYS = {
    "openai": "sk-" + "abcdefghijklmnopqrstuvwxyz123456",
    "openai project": "sk-" + "proj-abc123def456ghi789jkl012mno345",
    "anthropic": "sk-" + "ant-api03-R2D2_aB3dE5-fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3hI5jK7lM9-nO1pQ3rSAA",
    "openrouter": "sk-" + "or-v1-" + "0123456789abcdef" * 4,
    "github": "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ012",
    "gitlab": "glpat" + "-aB3dE5fG7hI9jK1lM3nO",
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "slack": "xoxb" + "-123456789012-1234567890123-abcdefghijklmnopqrstuvwx",
    "stripe": "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
    "google": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "hugging face": "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "sendgrid": "SG." + "aB3dE5fG7hI9jK1lM3nO5p.aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9d",
    "telegram": "123456789" + ":AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc",
    "honcho": "hch-" + "v3-a1b2c3d4e5f6g7h8i9j0k1l2m3n4",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}
LINES = "\n".join(["MIIEpAIBAAKCAQEA7bq9ZQzVfM8nLk2pQw3rT5yU7iO0aS1dF4gH6jK8lZxC2vB"] * 4)
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{LINES}\nAbCd=\n-----END RSA PRIVATE KEY-----"
PGP = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n{LINES}\n=aB3d\n-----END PGP PRIVATE KEY BLOCK-----"

IN_PLACE = [
    ("Authorization: Bearer {}", "abcdef1234567890"),
    ("authorization: basic {}", "dXNlcjpwYXNzd29yZA=="),
    ("curl -H 'X-Api-Key: {}'", "a1b2c3d4e5f6a7b8"),
    ("bearer {} was sent", "9f86d081884c7d659a2feaa0c55ad015"),
    ("password={}", "hunter2"),
    ("DB_PASSWORD={} and", "supersecret123"),
    ("password: '{}'", "p@ss,w(o)rd1"),
    ("my password is {}.", "Tr0ub4dor&3"),
    ("the password for our guest network is: {}", "hunter2"),
    ("the token of the bot is {} and", "a1b2c3d4e5f6a7b8"),
    ("postgres://bob:{}@db.example/x", "s3cret"),
    ("redis://:{}@h", "letmein"),
    ("api_key: {}", "550e8400-e29b-41d4-a716-446655440000"),
    ('{{"client_secret": "{}"}}', "GOCSPX-a1b2c3d4e5f6g7h8i9j0"),
    ("aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("https://x.example/?token={}&page=1", "a1b2c3d4e5f6a7b8"),
    ("token: password={}", "hunter2"),
    ("https://hooks.slack.com/services/{}", "T00000000/B00000000/" + "XaXbXcXdXeXfXgXhXiXjXkXl"),
]

IMAGE = b"".join(hashlib.sha512(bytes([number])).digest() for number in range(150))

ORDINARY = [
    "",
    "I moved to Lisbon.",
    "the commit 9fceb02d0ae598e95dc970b74767f19372d61af8 broke it",
    "order 550e8400-e29b-41d4-a716-446655440000 has not come",
    "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "OpenAI's keys begin with sk- and are long; GitHub's with ghp_, Slack's with xoxb-",
    'if key.startswith("sk-"): raise ValueError("sk- keys are not taken")',
    "class='sk-fading-circle sk-circle-animation-delay' from sk-learn",
    "export OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "OPENAI_API_KEY=your-api-key-goes-here",
    "the task-list, the risk-assessment-of-everything-that-moves, a disk-encryption-2024-report",
    "my password is",
    "the password for the guest network is on the fridge, the token of 1990 is a coin",
    "my password is correct, and the password is base64 encoded",
    "Password: required. The Secret: A Novel of 1942.",
    "def login(user: str, password: str, token: Optional[str] = None) -> None:",
    "login(password=config2.db.password, token=settings.refreshTokenExpirationSeconds)",
    "password=os.environ['X']; token = get_token_v2(); pwd=/home/user1; password=$PASSWORD",
    "max_tokens=100000, token count: 12, tokens: 4096",
    "public_key: a1b2c3d4e5f6a7b8c9d0",
    "bearer authentication-middleware; the bearer of this letter; Bearer YOUR_TOKEN_HERE; Bearer <token>",
    "it begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\n" + LINES + "\n-----END CERTIFICATE-----",
    "git@github.com:me/repo.git, https://example.com:8080/a@b, http://[::1]:8000, postgres://user:${PW}@h/d",
    "see https://github.com/a/b/blob/9fceb02d0ae598e95dc970b74767f19372d61af8/c.py#L10",
    "data:image/png;base64," + base64.b64encode(IMAGE).decode(),
    "El niño comió 🍎 mañana; мой пароль; 私のパスワードは秘密です",
]


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize(
    "around", ["{}", "use {}, please", "KEY={}\n", '{{"k":"{}"}}', "https://x.example/?k={}&b", "({})"]
)
def test_a_providers_key_is_masked_wherever_it_stands(name: str, around: str) -> None:
    assert redact(around.format(KEYS[name])) == around.format(MASK)


@pytest.mark.parametrize(("around", "secret"), IN_PLACE)
def test_a_secret_is_masked_where_its_place_says_so(around: str, secret: str) -> None:
    assert redact(around.format(secret)) == around.format(MASK)


@pytest.mark.parametrize("key", [PEM, PGP, PEM.replace("\n", "\\n"), PEM.replace("\n", "\r\n  ")])
def test_a_private_key_is_masked(key: str) -> None:
    assert redact(f"here: {key} there") == f"here: {MASK} there"
    cut_off = redact(f"here: {key.split('-----END', maxsplit=1)[0]}")
    assert "MIIE" not in cut_off


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert redact(text) == text


fragments = st.lists(
    st.sampled_from(
        [*KEYS.values(), *ORDINARY[:16], PEM, "password=", "://a:", "@h", "bearer ", "token: '", "'", " ", "\n"]
    )
    | st.text(max_size=12),
    max_size=8,
).map("".join)


@given(fragments)
def test_only_what_was_found_is_changed_and_nothing_is_found_twice(text: str) -> None:
    kept, place = "", 0
    for start, end in secrets(text):
        assert place <= start < end
        kept += text[place:start] + MASK
        place = end
    assert redact(text) == kept + text[place:]
    assert redact(redact(text)) == redact(text)


@given(st.text())
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


HOSTILE = [
    *("password for a a a ", "token of"),
    *(
        "sk-",
        "sk-a1",
        "password for a a a ",
        "://a:",
        "password=",
        "password=a1",
        "api_key='a",
        "token is ",
        "eyJaaaaaaaaa.",
        "bearer ",
        "a1",
    ),
    *("-----BEGIN PRIVATE KEY-----\n", "A: -----BEGIN PRIVATE KEY-----\n", "-----BEGIN A A A A ", "hf_", "\\n", " "),
    *("-----BEGIN PRIVATE KEY-----\nabcdefghijklmnopqrstuvwx\n", "authorization: bearer ", "ghp_a1a1a1a1a1a1a1a1 "),
]


@pytest.mark.parametrize("seed", [*HOSTILE, "".join(HOSTILE)], ids=range(len(HOSTILE) + 1))
def test_hostile_text_takes_time_in_proportion(seed: str) -> None:
    size = 1_000_000 if seed not in HOSTILE else 200_000
    text = ("password='-----BEGIN PRIVATE KEY-----\n" + seed * (size // len(seed)))[:size]
    start = time.thread_time()
    redact(text)
    assert time.thread_time() - start < size / 1_000_000


SECRET = KEYS["openai"]
ASKED = [
    ("honcho_conclude", {"conclusion": f"Uses {SECRET}"}),
    ("honcho_profile", {"card": ["Likes tea", f"Uses {SECRET}"]}),
    ("honcho_search", {"query": f"where is {SECRET}"}),
    ("honcho_reasoning", {"query": f"what is {SECRET}"}),
    ("honcho_conclude", {"list": True, "query": SECRET}),
]


def give(provider: HonchoProvider) -> list[Future[Receipt]]:
    """Give the secret as a turn, at the cut between two parts of one, and in what is imported."""
    return [
        provider.sync_turn(f"my key is {SECRET}", f"so {SECRET} it is"),
        provider.sync_turn("x " * 12_490 + SECRET + " y" * 100, ""),
        provider.remember("s", "user", SECRET, metadata={"beside": SECRET, SECRET: 1}, source_key=SECRET),
        provider.remember("s", "user", "y " * 15_000, metadata={"beside": SECRET}, source_key=f"a {SECRET}"),
        provider.remember("s", "user", "with parts", metadata={"beside": SECRET, "parts": 1}),
        provider.on_memory_write("add", "user", f"Uses {SECRET}"),
        provider.on_delegation(f"use {SECRET}", f"used {SECRET}", child_session_id=SECRET),
    ]


@pytest.mark.parametrize("on", [True, False])
def test_nothing_that_is_sent_holds_a_secret(server: FaultyServer, make_provider: MakeProvider, on: bool) -> None:
    provider = make_provider(base_url=server.url, redact=on)
    for future in give(provider):
        future.result(20)
    for tool, args in ASKED:
        answer = provider.handle_tool_call(tool, args)
        assert "error" not in json.loads(answer)
        assert (SECRET in answer) is (not on)
    provider.queue_prefetch(f"about {SECRET}")
    provider.handle_tool_call("honcho_context", {})
    provider.shutdown()
    sent = "".join(f"{seen.path} {seen.query} {seen.body_json}" for seen in server.requests)
    assert (SECRET in sent) is not on
    assert (MASK in sent) is on


@pytest.mark.parametrize("on", [True, False])
def test_nothing_that_is_kept_on_the_disk_holds_a_secret(make_provider: MakeProvider, on: bool, tmp_path: Path) -> None:
    settings = {"base_url": "http://127.0.0.1:9", "sync_join_timeout": 0.1, "shutdown_timeout": 0.1}
    provider = make_provider(redact=on, **settings)
    give(provider)
    assert json.loads(provider.handle_tool_call(*ASKED[0]))["queued"]
    assert provider.status().pending == 11
    provider.shutdown()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("outbox.db*"))
    assert (SECRET.encode() in kept) is not on
    assert (MASK.encode() in kept) is on


def test_redaction_reaches_every_text_of_a_json_value() -> None:
    value = {
        "a": [SECRET, {"b": (SECRET, 1, None, True)}],
        SECRET: 1.5,
        "password": "hunter2",
        "db": {"api_key": "a1b2c3d4e5f6a7b8", "note": "the token is a1b2c3d4e5f6a7b8 now", "count": 3},
        "token": "my words",
    }
    redacted = redact_json(value)
    assert redacted == {
        "a": [MASK, {"b": [MASK, 1, None, True]}],
        redact_key(SECRET): 1.5,
        "password": MASK,
        "db": {"api_key": MASK, "note": f"the token is {MASK} now", "count": 3},
        "token": "my words",
    }
    assert redact_json(redacted) == redacted


def test_redacted_source_keys_still_tell_messages_apart() -> None:
    keys = [f"a {SECRET}", f"a {KEYS['github']}"]
    made = [as_messages("ada", "x", Settings(), source_key=key)[0].source_key for key in keys]
    assert len({*made}) == len(keys)
    assert MASK in str(made[0])
    assert as_messages("ada", "x", Settings(), source_key="plain")[0].source_key == "plain"


said = st.lists(st.sampled_from([*KEYS.values(), *ORDINARY[:16], "'", "a: {", "xoxb-"]), max_size=4).map(" ".join)
values = st.recursive(
    said | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(said, inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_no_secret_is_left_in_a_redacted_json_value(value: object) -> None:
    redacted = redact_json(value)
    written = json.dumps(redacted)
    assert not any(key in written for key in KEYS.values())
    assert redact_json(redacted) == redacted
