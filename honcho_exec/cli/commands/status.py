"""`status`: show the Honcho in use, and whether it works."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from honcho_exec import __version__
from honcho_exec.cli.context import FAILED, CliContext, command, hint, json_option, pass_cli, print_json
from honcho_exec.cli.output import print_fields, stdout
from honcho_exec.cli.resources import open_provider
from honcho_exec.clock import format_duration
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.provider.status import Finding, Status

__all__ = ["settled_status", "status", "with_hints"]

# Rows that are being sent get this time, so that they are not taken for stuck ones.
_GRACE_SECONDS = 2.0

_BACKENDS = {
    "embedded": "embedded (on this machine, no server)",
    "server": "server",
    "cloud": "Honcho's cloud",
    "none": "none: settings or state cannot be used",
}


@command(
    "honcho-exec status",
    "honcho-exec --hermes-home ~/.hermes status       Hermes's own memory",
    "honcho-exec status --json | jq .pending",
)
@json_option
@pass_cli
@click.pass_context
def status(ctx: click.Context, cli: CliContext) -> None:
    """Show which Honcho is in use, and whether it works.

    Makes a real request. Exits with 1 if a problem needs a person: Honcho does not answer, refuses the key or a write,
    rows are stuck in the outbox, or settings or state cannot be used. `honcho-exec doctor` checks more.
    """
    # The answer names the memory in use.
    cli.memory_named = True
    with open_provider(cli, writes=False) as provider:
        seen = settled_status(provider)
    seen = replace(seen, findings=with_hints(seen.findings))
    elsewhere = _elsewhere(seen.state)
    if cli.as_json:
        print_json({**seen.to_dict(), "hint": elsewhere})
    else:
        _show(seen, elsewhere)
    ctx.exit(0 if seen.ok else FAILED)


def with_hints(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with advice that works as printed; see `hint`."""
    return tuple(replace(finding, advice=hint(finding.advice)) for finding in findings)


def settled_status(provider: HonchoProvider) -> Status:
    """Return the provider's status, after a moment to send the rows of an earlier process."""
    seen = provider.status()
    if seen.reachable and seen.pending:
        provider.flush(_GRACE_SECONDS)
        seen = provider.status()
    return seen


def _show(seen: Status, elsewhere: str | None) -> None:
    console = stdout()
    state, style = ("works", "bold green") if seen.ok else ("does not work", "bold red")
    if not seen.ok and seen.reachable and seen.problem is None:
        state, style = "works, but something needs you", "bold yellow"
    console.print(f"Honcho memory {state}", style=style)
    console.print()
    print_fields(console, [row for row in _rows(seen, elsewhere) if row[1]])


def _rows(seen: Status, elsewhere: str | None) -> Iterator[tuple[str, str, str]]:
    for finding in seen.findings:
        if finding.level == "problem":
            yield "problem", _with_advice(finding), "red"
    yield "backend", _BACKENDS.get(seen.backend, seen.backend), ""
    yield "url", seen.url if seen.backend != "embedded" else "", ""
    yield "workspace", seen.workspace, ""
    yield "peers", f"{seen.user_peer} (user), {seen.ai_peer} (assistant)" if seen.user_peer else "", ""
    yield "session", seen.session, ""
    yield "state", seen.state, ""
    if seen.workspace:
        yield "outbox", _outbox(seen), ""
        yield "delivered", f"last {_when(seen.last_delivery_at)}" if seen.last_delivery_at else "nothing yet", ""
        yield "recall", _recall(seen), ""
        yield "last error", f"{seen.last_error} ({_when(seen.last_error_at)})" if seen.last_error else "none", ""
    yield "key", {True: "accepted", False: "refused", None: ""}[seen.key_accepted], ""
    yield "breaker", seen.breaker if seen.backend not in {"embedded", "none"} else "", ""
    yield "latency", f"{seen.latency * 1000:.1f} ms" if seen.latency is not None else "", ""
    yield "versions", f"honcho_exec {__version__}, honcho-ai {seen.sdk_version}", ""
    for finding in seen.findings:
        if finding.level == "note":
            yield "note", _with_advice(finding), "yellow"
    yield "hint", elsewhere or "", ""


def _with_advice(finding: Finding) -> str:
    return f"{finding.what}; {finding.advice}" if finding.advice else finding.what


def _outbox(seen: Status) -> str:
    oldest = (
        f" (the oldest for {format_duration(seen.oldest_pending_age)})" if seen.oldest_pending_age is not None else ""
    )
    held = f", {seen.held} held back by writeFrequency" if seen.held else ""
    return (
        f"{seen.pending} pending{oldest}, {seen.in_flight} in flight, {seen.parked} parked,"
        f" {seen.elsewhere} for other destinations{held}"
    )


def _recall(seen: Status) -> str:
    """Describe the cost of recall in this session, and in the sessions that were used last."""
    if not seen.recalled:
        return ""
    calls, characters = sum(cost.llm_calls for cost in seen.recalled), sum(cost.characters for cost in seen.recalled)
    own = f"{seen.llm_calls} LLM calls and {seen.injected_characters:,} characters injected in this session"
    if [cost.session for cost in seen.recalled] == [seen.session]:
        return own
    return f"{own}, {calls:,} and {characters:,} in the {len(seen.recalled)} sessions used last"


def _when(moment: str | None) -> str:
    if moment is None:
        return "at an unknown time"
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _elsewhere(state: str) -> str | None:
    """Return a hint at Hermes's own memory if another one is shown by default."""
    hermes = Path("~/.hermes").expanduser()
    if Path(state) != Path("~/.honcho/exec").expanduser() or os.environ.get("HONCHO_EXEC_HOME", "").strip():
        return None
    if not (hermes / "honcho_exec").is_dir():
        return None
    see = f"honcho-exec --hermes-home {shlex.quote(str(hermes))} status"
    return f"Hermes's own memory is in {hermes / 'honcho_exec'}; see it with: {see}"
