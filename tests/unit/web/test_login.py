from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from support.browser import Browser, PageLeft
from support.serving import Serve, Served

from honcho_exec.web.login import OneTimeCode


class Opened:
    """A browser that only notes what it was told to open."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "opened"
        os.mkfifo(self._pipe)
        script = folder / "browser"
        script.write_text(f'#!/bin/sh\nprintf "%s" "$*" > "{self._pipe}"\n')
        script.chmod(0o755)
        self.environ = {"BROWSER": f"{script} %s"}

    def arguments(self) -> str:
        return self._pipe.read_text()


def opener_of(arguments: str) -> Path:
    url = urlsplit(arguments)
    assert url.scheme == "file"
    return Path(unquote(url.path))


def redeem(served: Served, code: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{served.url}/local/login", headers={"Honcho-Exec-Code": code} | headers, trust_env=False)


def test_browser_gets_a_code_that_works_once(serve: Serve, tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    served = serve("--open", **opened.environ)
    arguments = opened.arguments()
    opener = opener_of(arguments)
    (code,) = re.findall(r'"0; url=http://127\.0\.0\.1:\d+/#code=([\w-]{40,})"', opener.read_text())
    assert (stat.S_IMODE(opener.stat().st_mode), code in arguments) == (0o600, False)
    assert served.key not in arguments + opener.read_text()
    for wrong in ("", code[:-1], f"{code}x", served.key):
        assert redeem(served, wrong).status_code == 401
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert redeem(served, code, **headers).status_code == 403
    assert redeem(served, code).json() == {"key": served.key}
    assert redeem(served, code).status_code == 401
    assert served.end() == 0
    assert not opener.exists()


def test_without_a_key_the_page_is_opened_directly(serve: Serve, tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    served = serve("--open", "--no-auth", **opened.environ)
    assert opened.arguments() == f"{served.url}/"
    assert redeem(served, "x").status_code == 401


def test_code_is_valid_for_a_minute_or_until_the_next_one() -> None:
    now = 0.0
    codes = OneTimeCode("key", clock=lambda: now)
    assert codes.redeem("") is None
    first, second = codes.issue(), codes.issue()
    assert (codes.redeem(first), codes.redeem("é")) == (None, None)
    now = 59.9
    assert codes.redeem(second) == "key"
    third = codes.issue()
    now += 60
    assert codes.redeem(third) is None


def arrive(browser: Browser, opener: Path) -> None:
    """Open the file and follow it to the page; no script may be waiting when the browser goes on."""
    browser.call("Page.navigate", url=opener.as_uri())
    end = time.monotonic() + 20
    protocol = ""
    while protocol != "http:":
        assert time.monotonic() < end
        with suppress(PageLeft):
            protocol = browser.run("location.protocol")


@pytest.mark.usefixtures("remembered")
def test_browser_is_logged_in_without_a_code_in_its_history(serve: Serve, tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    served = serve("--open", **opened.environ)
    opener = opener_of(opened.arguments())
    with Browser(tmp_path / "chromium") as browser:
        arrive(browser, opener)
        browser.wait("document.querySelector('#content h2')")
        assert browser.run("sessionStorage.getItem('honcho-exec-key')") == served.key
        entries = browser.call("Page.getNavigationHistory")["entries"]
        assert not [entry["url"] for entry in entries if "code" in entry["url"]]
        assert browser.run("document.referrer") == ""
        assert browser.errors == []
        # A second browser finds the code used, and asks for the key.
        browser.run("sessionStorage.clear()")
        arrive(browser, opener)
        browser.wait("document.getElementById('ask-key')?.open")
