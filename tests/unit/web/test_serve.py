from __future__ import annotations

import json
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from logging.handlers import BufferingHandler
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from honcho import Honcho
from honcho.http import AuthenticationError
from support.browser import Browser
from support.serving import HOSTILE, Serve

from honcho_exec import HonchoProvider
from honcho_exec.cli.main import main
from honcho_exec.web.guard import Guard
from honcho_exec.web.server import make_server

IDLE = "!document.getElementById('content').hasAttribute('aria-busy')"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_honcho_clients_are_served_until_a_signal(serve: Serve, number: signal.Signals) -> None:
    served = serve()
    with httpx.Client(trust_env=False) as http:
        right, wrong = (
            Honcho(workspace_id="w", base_url=served.url, api_key=key, max_retries=0, http_client=http)
            for key in (served.key, "wrong")
        )
        right.session("s").add_messages(right.peer("ada").message("the heron stands in the reeds"))
        assert [hit.content for hit in right.search("heron")] == ["the heron stands in the reeds"]
        with pytest.raises(AuthenticationError):
            wrong.session("s")
    assert served.end(number) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/health", trust_env=False)


def test_provider_can_use_the_served_honcho(serve: Serve, tmp_path: Path) -> None:
    served = serve(HONCHO_SERVE_KEY="a-key-of-mine")
    environ = {"HOME": str(tmp_path), "HONCHO_BASE_URL": served.url, "HONCHO_API_KEY": "a-key-of-mine"}
    with HonchoProvider("s", environ=environ, home=tmp_path / "client") as provider:
        provider.sync_turn("I moved to Lisbon.", "Noted.").result(20)
        assert "I moved to Lisbon." in [hit.content for hit in provider.search("Lisbon")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "pi.lan"])  # noqa: S104 - nothing listens there
def test_no_auth_is_refused_on_other_addresses(host: str) -> None:
    refused = CliRunner().invoke(main, ["serve", "--host", host, "--no-auth"])
    assert (refused.exit_code, "--no-auth is for this machine only" in refused.output) == (2, True)


def test_empty_host_is_a_usage_error() -> None:
    refused = CliRunner().invoke(main, ["serve", "--host", ""])
    assert (refused.exit_code, "--host needs an address: 127.0.0.1" in refused.output) == (2, True)


def test_on_all_addresses_the_local_url_is_printed(serve: Serve) -> None:
    served = serve("--host", "0.0.0.0")  # noqa: S104 - with a key, and for the test only
    assert served.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{served.url}/health", trust_env=False).status_code == 200


def test_port_in_use_is_reported(serve: Serve) -> None:
    port = serve("--no-auth").url.rpartition(":")[2]
    refused = CliRunner().invoke(main, ["serve", "--port", port])
    assert (refused.exit_code, f"cannot listen on 127.0.0.1:{port}" in refused.output) == (1, True)


def test_open_connections_block_nobody(serve: Serve) -> None:
    served = serve("--no-auth")
    with ExitStack() as stack:
        for _ in range(130):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))))
            half.sendall(b"GET /health HTTP/1.1\r\nHost: x")
        assert httpx.get(f"{served.url}/health", trust_env=False).status_code == 200


def test_idle_connections_are_closed_and_logs_are_forwarded() -> None:
    logged = BufferingHandler(10)
    logging.getLogger("honcho_exec").addHandler(logged)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        guard = Guard(lambda _, __: [], key=None, loopback_only=False, is_public=lambda _, __: False)
        server = make_server(guard, listening, body_limit=lambda _: 0)
        try:
            with socket.create_connection(listening.getsockname()) as half:
                half.sendall(b"GET / HT")
                while not any(channel.request for channel in server.active_channels.values()):
                    server.asyncore.loop(1, map=server._map, count=1)
                server.maintenance(time.time() + 25)
                server.asyncore.loop(0, map=server._map, count=1)
                assert not server.active_channels
                assert half.recv(1) == b""
            logging.getLogger("waitress.queue").warning("Task queue depth is 1")
            assert [record.getMessage() for record in logged.buffer] == ["Task queue depth is 1"]
        finally:
            logging.getLogger("honcho_exec").removeHandler(logged)
            server.task_dispatcher.shutdown()
            server.close()


@pytest.mark.usefixtures("remembered")
def test_outbox_state_has_the_latency_of_deliveries(serve: Serve) -> None:
    served = serve("--no-auth")
    state = httpx.get(f"{served.url}/local/outbox", trust_env=False).json()
    assert state["counts"]["pending"] == 0
    assert sum(delivery["rows"] for delivery in state["deliveries"]) == 5
    assert all(0 <= delivery["waited"] < 60 for delivery in state["deliveries"])


@pytest.fixture
def browser(tmp_path: Path, serve: Serve, remembered: HonchoProvider) -> Iterator[Browser]:
    served = serve(HONCHO_WORKSPACE=remembered.status().workspace)
    with Browser(tmp_path / "chromium") as browser:
        browser.open(f"{served.url}/")
        browser.wait("document.getElementById('ask-key').open")
        browser.type("wrong")
        browser.press("Enter")
        browser.wait("document.getElementById('ask-key').open && !document.getElementById('key-wrong').hidden")
        browser.type(served.key)
        browser.press("Enter")
        browser.wait("document.querySelector('#content h2')")
        # The answer that the key is wrong is the one complaint that there may be.
        browser.errors.clear()
        yield browser
        assert browser.run("document.title") != "owned"
        assert browser.errors == []


def go(browser: Browser, route: str) -> str:
    # Until the event, the page may still show what was there before, and not be busy.
    browser.run(
        "new Promise((done) => { addEventListener('hashchange', () => done(), { once: true });"
        f" if (location.hash === {route!r}) done(); location.hash = {route!r}; }})"
    )
    browser.wait(f"{IDLE} && document.querySelector('#tabs [aria-current]').hash === '#/{route.split('/')[1]}'")
    return str(browser.run("document.getElementById('content').innerText"))


def test_page_shows_the_memory(browser: Browser) -> None:
    assert "talks" in go(browser, "#/sessions")
    assert HOSTILE in go(browser, "#/sessions/talks")
    assert "Lives by a lake" in go(browser, "#/peers/ada")
    assert "Ada likes herons" in go(browser, "#/peers/ada")
    assert "The heron stands in the reeds." in go(browser, "#/search/heron")
    assert "No pending or parked rows." in go(browser, "#/outbox")
    assert browser.run("document.querySelectorAll('svg.plot circle').length") > 0
    colours = []
    for dark in (False, True):
        browser.dark(dark)
        colours.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False)
    for route, part in (("#/conclusions", ".danger"), ("#/search/heron", "form button"), ("#/outbox", "svg text")):
        go(browser, route)
        box = f"document.querySelector('#content {part}').getBoundingClientRect()"
        assert browser.run(f"{box}.width / {box}.height") > 1.4, part
        assert browser.run(f"{box}.height") > 10, part
        assert browser.run("document.documentElement.scrollWidth") <= 360


def test_page_lists_all_workspaces_and_titles_failures(browser: Browser) -> None:
    browser.run(
        "Promise.all([...Array(101).keys()].map((number) => fetch('/v3/workspaces', {method: 'POST', body:"
        " JSON.stringify({id: `w${number}`}), headers: {'Content-Type': 'application/json',"
        " Authorization: `Bearer ${sessionStorage.getItem('honcho-exec-key')}`}})))"
        ".then(() => document.getElementById('workspace').replaceChildren())"
    )
    go(browser, "#/sessions")
    assert browser.run("document.getElementById('workspace').options.length") == 102
    go(browser, "#/peers/no:id")
    assert browser.run("document.title") == "Peers · Honcho memory"
    assert "not found" in browser.run("document.getElementById('status').textContent")
    browser.errors.clear()


def test_conclusion_is_deleted_by_keyboard_after_confirmation(browser: Browser, remembered: HonchoProvider) -> None:
    go(browser, "#/conclusions")
    for answer, left in (("Escape", 2), ("Enter", 2), ("Tab Enter", 1)):
        browser.run("[...document.querySelectorAll('#content .danger')].at(-1).focus()")
        browser.press("Enter")
        browser.wait("document.getElementById('confirm').open")
        assert browser.run("document.getElementById('confirm-text').textContent") == f"Ada {HOSTILE}"
        for key in answer.split():
            browser.press(key)
        browser.wait(
            "!document.getElementById('confirm').open"
            f" && document.querySelectorAll('#content .danger').length === {left}"
        )
    assert '"Ada likes herons"' in remembered.handle_tool_call("honcho_conclude", {"list": True})
    assert "onerror" not in remembered.handle_tool_call("honcho_conclude", {"list": True})
    (left,) = json.loads(remembered.handle_tool_call("honcho_conclude", {"list": True}))["conclusions"]
    remembered.handle_tool_call("honcho_conclude", {"delete_id": left["id"]})
    browser.run("document.querySelector('#content .danger').click()")
    browser.press("Tab")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('#content .danger').length === 0")
    browser.errors.clear()


def test_page_loads_no_foreign_assets(serve: Serve) -> None:
    served = serve("--no-auth")
    with httpx.Client(base_url=served.url, trust_env=False) as http:
        page = (
            http.get("/").text
            + http.get("/page.css").text
            + http.get("/page.js").text
            + http.get("/dom.js").text
            + http.get("/plot.js").text
        )
    assert "innerHTML" not in page
    assert "https://" not in page
