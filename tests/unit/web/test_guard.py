from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from honcho_exec.embedded import EmbeddedHoncho
from honcho_exec.errors import ConfigurationError, StateError
from honcho_exec.web.guard import Guard, is_loopback
from honcho_exec.web.keys import serve_key
from honcho_exec.web.site import Site, is_public

LIST = "/v3/workspaces/list"
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def honcho(tmp_path: Path) -> Iterator[EmbeddedHoncho]:
    honcho = EmbeddedHoncho(tmp_path / "memory.db")
    yield honcho
    honcho.close()


def ask(
    honcho: EmbeddedHoncho,
    path: str = LIST,
    *,
    method: str = "POST",
    key: str | None = "right",
    near: bool = True,
    **headers: str,
) -> httpx.Response:
    guard = Guard(Site(honcho.app, lambda: {"rows": []}), key=key, loopback_only=near, is_public=is_public)
    with httpx.Client(transport=httpx.WSGITransport(app=guard), base_url=HERE) as client:
        return client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    "shown", ["", "right", "Bearer", "Bearer ", "Bearer wrong", "Basic right", "Bearerright", "Bearer right2"]
)
def test_without_the_right_key_every_request_is_refused(honcho: EmbeddedHoncho, shown: str) -> None:
    for method, path in (("POST", LIST), ("GET", "/local/outbox"), ("GET", "/nothing"), ("PUT", "/page.js")):
        answer = ask(honcho, path, method=method, authorization=shown)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_of_the_key_may_be_in_any_case(honcho: EmbeddedHoncho, scheme: str) -> None:
    assert ask(honcho, authorization=f"{scheme} right").status_code == 200


def test_with_the_right_key_it_answers(honcho: EmbeddedHoncho) -> None:
    answer = ask(honcho, authorization="Bearer right")
    assert (answer.status_code, answer.json()["total"]) == (200, 0)
    assert ask(honcho, "/local/outbox", method="GET", authorization="Bearer right").json() == {"rows": []}


def test_page_and_health_require_no_key(honcho: EmbeddedHoncho) -> None:
    for path in ("/", "/page.js", "/dom.js", "/plot.js", "/page.css", "/icon.svg", "/health"):
        assert ask(honcho, path, method="GET").status_code == 200
    policy = ask(honcho, "/", method="GET").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy


def test_head_is_answered_without_a_body(honcho: EmbeddedHoncho) -> None:
    for path, key in (("/", None), ("/page.js", None), ("/local/outbox", None), ("/local/outbox", "right")):
        assert ask(honcho, path, method="HEAD", key=key).content == b""


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_host_names_that_resolve_here_are_refused(honcho: EmbeddedHoncho, name: str) -> None:
    for path, method in ((LIST, "POST"), ("/", "GET")):
        assert ask(honcho, path, method=method, authorization="Bearer right", host=name).status_code == 403
        assert ask(honcho, path, method=method, key=None, host=name).status_code == 403


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "127.0.0.1:9000", "127.0.0.2", "[::1]:8000"])
def test_loopback_names_are_accepted(honcho: EmbeddedHoncho, name: str) -> None:
    assert ask(honcho, key=None, host=name).status_code == 200


def test_other_addresses_accept_any_name_with_the_key(honcho: EmbeddedHoncho) -> None:
    assert ask(honcho, near=False, host="pi.lan:8000", authorization="Bearer right").status_code == 200
    assert ask(honcho, near=False, host="pi.lan:8000").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "https://127.0.0.1"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://localhost:8000"},
        {"origin": "127.0.0.1:8000"},
        {"origin": "file://127.0.0.1:8000"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_other_origins_are_refused_even_without_a_key(honcho: EmbeddedHoncho, headers: dict[str, str]) -> None:
    assert ask(honcho, key=None, **headers).status_code == 403
    assert ask(honcho, authorization="Bearer right", **headers).status_code == 403


def test_own_page_is_admitted(honcho: EmbeddedHoncho) -> None:
    assert ask(honcho, key=None, origin=HERE, sec_fetch_site="same-origin").status_code == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://mem.example", "mem.example"),
        ("https://mem.example", "Mem.Example:443"),
        ("https://mem.example:8443", "mem.example:8443"),
        ("http://mem.example", "mem.example:80"),
    ],
)
def test_own_page_is_admitted_through_a_tls_proxy(honcho: EmbeddedHoncho, origin: str, host: str) -> None:
    asked = {"origin": origin, "host": host, "authorization": "Bearer right", "sec_fetch_site": "same-origin"}
    assert ask(honcho, near=False, **asked).status_code == 200
    for other in ("https://evil.example", "https://mem.example:1", f"{origin}.evil.example", "null"):
        assert ask(honcho, near=False, **(asked | {"origin": other})).status_code == 403


def test_key_is_generated_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    key, path = serve_key({}, tmp_path / "state")
    assert serve_key({}, tmp_path / "state") == (key, path)
    assert path is not None
    assert (path.stat().st_mode & 0o777, len(key) >= 40) == (0o600, True)
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    with pytest.raises(StateError, match="can be read by other users"):
        serve_key({}, tmp_path / "state")


def test_key_of_the_environment_is_used_and_not_stored(tmp_path: Path) -> None:
    assert serve_key({"HONCHO_SERVE_KEY": " mine "}, tmp_path / "state") == ("mine", None)
    assert not (tmp_path / "state").exists()
    with pytest.raises(ConfigurationError, match="HONCHO_SERVE_KEY") as raised:
        serve_key({"HONCHO_SERVE_KEY": "my secret"}, tmp_path)
    assert "secret" not in str(raised.value)


def test_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "pi.lan", "", "127.0.0.1.x")] == [False] * 6  # noqa: S104 - nothing listens there
