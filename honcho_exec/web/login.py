"""Log a browser in without exposing the key to other users.

Command lines can be read by every user of a machine, and URLs stay in the browser's history. So the browser opens a
file that only its owner can read; the file redirects to the page with a code, which the page exchanges for the key.
The code is valid once, for one minute.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from html import escape
from pathlib import Path

from honcho_exec.storage.folders import using_folder
from honcho_exec.storage.private_file import write_atomically

__all__ = ["OneTimeCode", "write_opener"]

_VALID_SECONDS = 60.0
_BYTES = 32
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>Honcho memory</title>
<p><a href="{url}" rel="noreferrer">Open the page</a></p>
</html>
"""


class OneTimeCode:
    """A code that can be exchanged for the key once.

    Args:
        key: the key.
        clock: returns monotonic seconds.
    """

    def __init__(self, key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._code: bytes | None = None
        self._until = 0.0

    def issue(self) -> str:
        """Return a new code, which invalidates the one before."""
        code = secrets.token_urlsafe(_BYTES)
        with self._lock:
            self._code, self._until = code.encode(), self._clock() + _VALID_SECONDS
        return code

    def redeem(self, code: str) -> str | None:
        """Return the key if the code is valid, and invalidate the code."""
        with self._lock:
            valid = self._code is not None and self._clock() < self._until
            if not valid or self._code is None or not hmac.compare_digest(self._code, code.encode()):
                return None
            self._code = None
        return self._key


def write_opener(home: Path, url: str, code: str) -> Path:
    """Write the file (mode 0600) that opens `url` with the code.

    Raises:
        StateError: the state folder `home` cannot be written to.
    """
    path = home.absolute() / f"open-{url.rpartition(':')[2]}.html"
    with using_folder(home), write_atomically(path) as file:
        file.write(_PAGE.format(url=escape(f"{url}/#code={code}")).encode("ascii"))
    return path
