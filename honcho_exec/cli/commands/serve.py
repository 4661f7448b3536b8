"""`serve`: offer this machine's memory to any Honcho client, and to a browser."""

from __future__ import annotations

import logging
import time
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from honcho_exec.cli.context import CliContext, command, json_option, pass_cli, print_json
from honcho_exec.cli.hermes_home import environment
from honcho_exec.cli.output import print_fields, print_text, stdout, without_password
from honcho_exec.cli.resources import MEMORY_FILE, open_memory, open_outbox
from honcho_exec.cli.rows import to_dict
from honcho_exec.embedded.limits import body_limit
from honcho_exec.outbox.outbox import Outbox
from honcho_exec.runtime.log import call_guarded
from honcho_exec.runtime.timer import call_later
from honcho_exec.web.guard import Guard, is_loopback
from honcho_exec.web.keys import serve_key
from honcho_exec.web.login import OneTimeCode, write_opener
from honcho_exec.web.server import listen
from honcho_exec.web.site import Site, is_public

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_ROWS = 100
_TEXT = 300


@command(
    "honcho-exec serve",
    "honcho-exec --hermes-home ~/.hermes serve       Hermes's own memory",
    "HONCHO_BASE_URL=http://localhost:8000 HONCHO_API_KEY=$(cat ~/.honcho/exec/serve.key) my-agent",
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="The address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="The port (8000); 0 chooses a free one.")
@click.option("--no-auth", is_flag=True, help="Require no key; for this machine only.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser, logged in by a one-time code.")
@click.option(
    "--unauthenticated-share",
    "share",
    type=click.IntRange(1, 90),
    metavar="PERCENT",
    default=25,
    help="The share of connections for clients without a key (25).",
)
@json_option
@pass_cli
def serve(cli: CliContext, host: str, port: int, *, no_auth: bool, open_page: bool, share: int) -> None:
    """Serve this memory over HTTP, with a page to look at it.

    Any Honcho client can use it, with the URL that is printed and the key, which is created once and stored in the
    state folder; HONCHO_SERVE_KEY replaces it. Ctrl-C ends it.
    """
    if not host.strip():
        raise click.UsageError("--host needs an address: 127.0.0.1, or 0.0.0.0 to be reached from other machines")
    near = is_loopback(host)
    if no_auth and not near:
        raise click.UsageError(f"--no-auth is for this machine only; {host} can be reached from elsewhere")
    with open_outbox(cli) as outbox, ExitStack() as left:
        home = outbox.path.parent
        key, kept = (None, None) if no_auth else serve_key(environment(cli.hermes_home), home)
        code = None if key is None else OneTimeCode(key)
        with open_memory(cli, create=True, with_model=True) as honcho:
            site = Site(honcho.app, lambda: _state(outbox), (lambda _: None) if code is None else code.redeem)
            guard = Guard(site, key=key, loopback_only=near, is_public=is_public)

            def started(url: str, everywhere: bool) -> None:
                _print_address(cli, url, home / MEMORY_FILE, kept, no_auth=no_auth, everywhere=everywhere)
                if open_page:
                    _open(url, home, code, left)

            listen(guard, host, port, body_limit=body_limit, unauthenticated_share=share / 100, started=started)


def _open(url: str, home: Path, code: OneTimeCode | None, left: ExitStack) -> None:
    """Open the page in a browser; the temporary file for it is removed at the end."""
    page = f"{url}/"
    if code is not None:
        opener = write_opener(home, url, code.issue())
        left.callback(opener.unlink, missing_ok=True)
        page = opener.as_uri()
    # Some browsers return only when they are closed, and all of them request the page first.
    call_later(0, lambda: _browse(page, url))


def _browse(page: str, url: str) -> None:
    if not call_guarded(_log, "the browser", lambda: webbrowser.open(page), otherwise=False):
        click.echo(f"No browser could be opened; open {url}/ in one.", err=True)


def _print_address(
    cli: CliContext, url: str, file: Path, kept: Path | None, *, no_auth: bool, everywhere: bool
) -> None:
    """Print the address, and how to get the key, which is never printed itself."""
    if cli.as_json:
        print_json({"url": url, "page": f"{url}/", "memory": str(file), "key_file": str(kept) if kept else None})
        return
    console = stdout()
    where = "none is needed" if no_auth else f"cat {kept}" if kept else "what HONCHO_SERVE_KEY holds"
    rows = [("page", f"{url}/", ""), ("key", where, ""), ("memory", str(file), "")]
    print_fields(console, [("clients", f"HONCHO_BASE_URL={url}, and the key as HONCHO_API_KEY", ""), *rows])
    if everywhere:
        print_text(
            console, "\nIt listens on every address of this machine; on other machines, use its name in the URL."
        )
    print_text(console, "\nCtrl-C ends it.", style="dim")


def _state(outbox: Outbox) -> Mapping[str, object]:
    """Return the outbox for the page: its rows, the last error, and the latest deliveries."""
    now = time.time()
    rows = [to_dict(row, now) for row in outbox.inspection.rows(limit=_ROWS)]
    shown = ("id", "state", "kind", "session", "who", "age", "attempts", "reason", "text")
    return {
        "now": now,
        "destination": without_password(outbox.destination),
        "counts": asdict(outbox.inspection.counts()),
        "history": asdict(outbox.history.last()),
        "rows": [{name: _short(row[name]) for name in shown} for row in rows],
        "deliveries": [asdict(delivery) for delivery in outbox.history.deliveries()],
    }


def _short(value: object) -> object:
    return value[: _TEXT - 1] + "…" if isinstance(value, str) and len(value) > _TEXT else value
