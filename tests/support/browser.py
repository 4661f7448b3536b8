"""A real headless Chromium, spoken to over a pipe in its own DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

__all__ = ["Browser", "PageLeft"]

CHROMIUM = Path("/usr/bin/chromium")
"""Where Debian puts it; without it, tests of the page are skipped."""

# The protocol is spoken on descriptors 3 and 4, whatever the pipe's own numbers are.
_START = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]);"
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class PageLeft(Exception):  # noqa: N818 - what happened, not a fault
    """The browser went on to another page while a script was under way."""


class Browser:
    """One page of a browser, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        if not CHROMIUM.exists():
            pytest.skip(f"{CHROMIUM} is not installed")
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += [
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder}",
            "--window-size=1000,800",
            "about:blank",
        ]
        command = [sys.executable, "-c", _START, str(their_in), str(their_out), str(CHROMIUM), *options]
        self._process = subprocess.Popen(
            command, pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_in)
        os.close(their_out)
        self._out: IO[bytes] = os.fdopen(our_out, "wb", buffering=0)
        self._in: IO[bytes] = os.fdopen(our_in, "rb")
        self._session = ""
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._out.close()
        self._process.kill()
        self._process.wait()
        self._in.close()

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result; what the page complains of meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise PageLeft
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def run(self, script: str) -> Any:
        """Run JavaScript in the page, wait for its promise, and return its value."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression holds; what the page looks like is told when that takes longer than 20 s."""
        script = (
            "new Promise((done) => { const end = Date.now() + 20000; const look = () => {"
            f" if ({condition}) done(true); else if (Date.now() > end) done(false);"
            " else setTimeout(look, 20); }; look(); })"
        )
        assert self.run(script), (condition, self.run("document.body.innerText"), self.errors)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def type(self, text: str) -> None:
        """Type where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key: Enter, Tab, or Escape."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def dark(self, on: bool) -> None:
        """Prefer dark colours, or light ones."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _read(self) -> bytes:
        said = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser has ended"
            said += byte
        return bytes(said)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.errors.append(str(event["params"]["entry"]["text"]))
