"""`search`, `conclude`, `profile` and `context`: use the memory by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from honcho_exec.cli.context import FAILED, WRONG_USE, CliContext, command, json_option, pass_cli, print_json, printable
from honcho_exec.cli.output import print_text, stdout
from honcho_exec.cli.resources import open_provider
from honcho_exec.errors import InputError

__all__ = ["conclude", "context", "profile", "search"]

_peer_option = click.option("--peer", metavar="PEER", default="user", help="The peer: user (default), ai, or an id.")


@command(
    'honcho-exec search "where does my sister live"',
    "honcho-exec search allergy --limit 3 --json | jq -r '.hits[].content'",
)
@click.argument("query")
@_peer_option
@click.option("--limit", type=click.IntRange(1, 100), default=10, help="The maximum number of messages (10).")
@json_option
@pass_cli
def search(cli: CliContext, query: str, peer: str, limit: int) -> None:
    """Search the messages of all sessions of a peer, best first."""
    if not query.strip():
        raise InputError("the query must not be empty: say what to search for")
    with open_provider(cli, writes=False) as provider:
        found = provider.find(query, peer=peer, limit=limit)
    if cli.as_json:
        hits = [{**asdict(hit), "metadata": dict(hit.metadata)} for hit in found.hits]
        print_json({"hits": hits} | ({"left_out": found.left_out} if found.left_out else {}))
        return
    console = stdout()
    if not found.hits:
        print_text(console, "Nothing was found.")
    for index, hit in enumerate(found.hits):
        if index:
            console.print()
        when = hit.created_at[:16].replace("T", " ")
        print_text(console, f"{hit.peer} · {when} · {hit.session}", style="cyan")
        print_text(console, hit.content, indent=2)
    if found.left_out:
        click.echo(f"Left out: {printable(found.left_out)}", err=True)


@command(
    'honcho-exec conclude "Nadia is allergic to walnuts"',
    "honcho-exec conclude --list --query food",
    "honcho-exec conclude --delete 3f0c21d9",
)
@click.argument("fact", metavar="TEXT", required=False)
@click.option("--list", "listed", is_flag=True, help="List conclusions with their ids, newest first.")
@click.option("--query", metavar="QUERY", help="With --list: what to search for.")
@click.option("--delete", "delete_id", metavar="ID", help="Delete a conclusion; --list shows the ids.")
@_peer_option
@json_option
@pass_cli
@click.pass_context
def conclude(
    ctx: click.Context,
    cli: CliContext,
    *,
    fact: str | None,
    listed: bool,
    query: str | None,
    delete_id: str | None,
    peer: str,
) -> None:
    """Store, list or delete lasting facts about a peer."""
    if [fact is not None, listed, delete_id is not None].count(True) != 1:
        raise click.UsageError("give exactly one of TEXT, --list and --delete ID")
    if query is not None and not listed:
        raise click.UsageError("--query goes with --list")
    args = {"conclusion": fact, "delete_id": delete_id, "list": listed or None, "query": query, "peer": peer}
    _call(ctx, cli, "honcho_conclude", args, writes=not listed)


@command(
    "honcho-exec profile",
    'honcho-exec profile --set "Lives in Tromsø" "Allergic to walnuts"',
)
@click.argument("facts", metavar="[FACT]...", nargs=-1)
@click.option("--set", "write", is_flag=True, help="Overwrite the card with these facts.")
@_peer_option
@json_option
@pass_cli
@click.pass_context
def profile(ctx: click.Context, cli: CliContext, facts: tuple[str, ...], write: bool, peer: str) -> None:
    """Show or overwrite a peer's card, its most important facts."""
    if write != bool(facts):
        raise click.UsageError("facts go with --set, as in: profile --set 'Lives in Tromsø' 'Has a cat'")
    _call(ctx, cli, "honcho_profile", {"card": list(facts) or None, "peer": peer}, writes=write)


@command(
    "honcho-exec context",
    "honcho-exec context --peer ai",
)
@_peer_option
@json_option
@pass_cli
@click.pass_context
def context(ctx: click.Context, cli: CliContext, peer: str) -> None:
    """Show the context of the session: its summary, and what is known of a peer."""
    _call(ctx, cli, "honcho_context", {"peer": peer})


def _call(ctx: click.Context, cli: CliContext, tool: str, args: Mapping[str, object], *, writes: bool = False) -> None:
    """Call a tool, print its answer, and exit with its code."""
    with open_provider(cli, writes=writes) as provider:
        answer = provider.handle_tool_call(tool, args)
    known: dict[str, Any] = json.loads(answer)
    if cli.as_json:
        click.echo(answer)
    elif "error" in known:
        click.echo(f"Error: {printable(known['error'])}", err=True)
    else:
        show_answer(known)
    if "error" in known:
        ctx.exit(WRONG_USE if known["cause"] == "argument" else FAILED)


def show_answer(answer: dict[str, Any]) -> None:
    """Print a tool's answer for people."""
    console = stdout()
    for one in answer.get("conclusions", ()):
        print_text(console, f"{one['id']} · {str(one['created_at'] or '')[:10]}", style="cyan")
        print_text(console, one["content"], indent=2)
    if "result" in answer:
        result = answer["result"]
        print_text(console, result if isinstance(result, str) else "\n".join(f"- {line}" for line in result))
    if "hint" in answer:
        print_text(console, answer["hint"], style="dim")
