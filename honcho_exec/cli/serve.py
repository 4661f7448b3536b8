"""`serve`: the memory of this machine for any Honcho client, and for a person with a browser."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from honcho_exec.cli.homes import environment
from honcho_exec.cli.rows import to_dict
from honcho_exec.cli.run import MEMORY, Run, command, json_option, lent, memory, pass_run, print_json
from honcho_exec.cli.show import fields, stdout, text, without_password

if TYPE_CHECKING:
    # It takes long to import; --help does without it.
    from honcho_exec.outbox import Outbox

__all__ = ["serve"]

_ROWS = 100
_TEXT = 300


@command(
    "honcho-exec serve",
    "honcho-exec --hermes-home ~/.hermes serve       Hermes's own memory",
    "HONCHO_BASE_URL=http://localhost:8000 HONCHO_API_KEY=$(cat ~/.honcho/exec/serve.key) my-agent",
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="On which port (8000); 0 takes a free one.")
@click.option("--no-auth", is_flag=True, help="Ask for no key; on this machine only.")
@json_option
@pass_run
def serve(run: Run, host: str, port: int, *, no_auth: bool) -> None:
    """Serve this memory over HTTP, with a page to look at it.

    Any Honcho client can use it with the URL that is printed and the key, which is made once and kept in the state
    folder; HONCHO_SERVE_KEY gives another. Ctrl-C ends it.
    """
    from honcho_exec.web.guard import Guard, is_loopback  # noqa: PLC0415 - --help does without it
    from honcho_exec.web.keys import serve_key  # noqa: PLC0415 - see above
    from honcho_exec.web.server import listen  # noqa: PLC0415 - see above
    from honcho_exec.web.site import Site, is_open  # noqa: PLC0415 - see above

    if not host.strip():
        raise click.UsageError("--host needs an address: 127.0.0.1, or 0.0.0.0 to be reached from elsewhere")
    near = is_loopback(host)
    if no_auth and not near:
        raise click.UsageError(f"--no-auth is for this machine only; {host} can be reached from elsewhere")
    with lent(run) as outbox:
        home = outbox.path.parent
        key, kept = (None, None) if no_auth else serve_key(environment(run.hermes_home), home)
        with memory(run, make=True, answers=True) as honcho:
            site = Site(honcho.app, lambda: _state(outbox))
            guarded = Guard(site, key=key, loopback_only=near, is_open=is_open)
            listen(
                guarded,
                host,
                port,
                started=lambda url, everywhere: _tell(
                    run, url, home / MEMORY, kept, no_auth=no_auth, everywhere=everywhere
                ),
            )


def _tell(run: Run, url: str, file: Path, kept: Path | None, *, no_auth: bool, everywhere: bool) -> None:
    """Say where it is, and how to get the key, which is never printed."""
    if run.as_json:
        print_json({"url": url, "page": f"{url}/", "memory": str(file), "key_file": str(kept) if kept else None})
        return
    console = stdout()
    where = "none is needed" if no_auth else f"cat {kept}" if kept else "what HONCHO_SERVE_KEY holds"
    rows = [("page", f"{url}/", ""), ("key", where, ""), ("memory", str(file), "")]
    fields(console, [("clients", f"HONCHO_BASE_URL={url}, and the key as HONCHO_API_KEY", ""), *rows])
    if everywhere:
        text(console, "\nIt listens on every address of this machine; from elsewhere, use its name in the URL.")
    text(console, "\nCtrl-C ends it.", style="dim")


def _state(outbox: Outbox) -> Mapping[str, object]:
    """The outbox for the page: how much waits, what failed last, and how long deliveries took."""
    now = time.time()
    rows = [to_dict(row, now) for row in outbox.rows(limit=_ROWS)]
    shown = ("id", "state", "kind", "session", "who", "age", "attempts", "reason", "text")
    return {
        "now": now,
        "destination": without_password(outbox.destination),
        "counts": asdict(outbox.counts()),
        "history": asdict(outbox.history()),
        "rows": [{name: _short(row[name]) for name in shown} for row in rows],
        "deliveries": [asdict(delivery) for delivery in outbox.deliveries()],
    }


def _short(value: object) -> object:
    return value[: _TEXT - 1] + "…" if isinstance(value, str) and len(value) > _TEXT else value
