"""Write docs/settings.md and the dashboard's schema from the settings: python docs/tools/make_settings.py."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.alias_generators import to_camel

from honcho_exec.settings import Settings, extra, variables

PAGE = Path(__file__).parents[1] / "settings.md"

INTRODUCTION = """\
# Settings

Nothing has to be set: with no settings at all, memory lives in the embedded Honcho on this machine.

Every setting has an environment variable and a key in Honcho's own file, so that people who use Hermes Agent's
bundled provider today need change nothing. **The environment beats the file; in the file the host's block
(`hosts.<host>`) beats the root; then the default.** The file is the first that exists of
`$HERMES_HOME/honcho.json`, `~/.hermes/honcho.json` and `~/.honcho/config.json`. The host is `hermes`, or
`hermes_<profile>` for a named profile; `HERMES_HONCHO_HOST` overrides it, and the file's `defaultHost` serves the
default profile. A value that cannot be used is an error that names it, all of them at once; a
number of the file that is out of range is used as the nearest one that is not, and that is said. A variable that is
nearly the name of a setting is warned of.

`honcho-exec config` shows what is in use: each value, where it comes from and what it means, with keys and passwords
masked; `honcho-exec --profile NAME config` does so for a profile of Hermes. A profile that is kept elsewhere than in
`~/.hermes` finds the file beside its `profiles/` folder too.

This page is made from the declarations in `honcho_exec/settings/` by `python docs/tools/make_settings.py`, and a test
keeps it true.

"""

STATE = """\

## Who and where

The **user's peer** is the first that applies of: `peerName`, when `pinUserPeer` is set; the alias of the runtime id, or
of its alternative; `runtimePeerPrefix` and the runtime id; `peerName`; the system's user. The **session** is named by
the first of: the program itself (`HonchoProvider("name")`); the gateway's chat; the host's run (`per-session`); the map
`sessions`; a title that a person gave, unless several people talk to the assistant; the repository (`per-repo`) or
directory; the workspace. A gateway's title never names a session.

Every character that Honcho does not take becomes a hyphen, and a session's name of more than 100 characters is cut and
gets a digest. In a gateway two different chats or users never share a name: `agent:main:telegram:dm:42` (segments of
letters, digits and `_`) becomes `agent-main-telegram-dm-42`, and every other key gets 20 hexadecimal digits of its
SHA-256. So does a user id that Honcho does not take as it is or that reads like such a name. What the operator wrote
(`peerName`, aliases, `sessions`) is taken as it is; `doctor` notes directories that share a session. Users of a gateway
without chats work in sessions of their own, also in one directory.

Sessions of earlier versions, whose names could be shared, are continued only if they have no members but this user
and the assistant; otherwise they are left alone and a new session begins. This is decided once for each chat and
remembered in `known.db`; `doctor` lists the decisions. Rows that wait in the outbox keep the session they were stored
for.

The same configuration gives the same ids as Honcho's own plugin, with these exceptions, which a test holds to
(`test_present_users_find_what_they_have`):

- A chat key gets a digest unless no other key gives the same name.
- A runtime id that Honcho does not take as it is (`@ada:matrix.org`, `+49…`), or that meets a chosen name, the system's
  user or the assistant's, gets a digest also without a prefix. A peer from before is kept by an alias:
  `"userPeerAliases": {"@ada:matrix.org": "-ada-matrix-org"}`; the chat's earlier session is continued then, too.
- Without a runtime id and `peerName` the peer is the system's user, not one made up from the session.
- `sessionPeerPrefix` puts the peer of whoever speaks before the name, not only a configured one.
- Without a file a profile has a workspace of its own, as it has with one.
- A workspace with signs that Honcho does not take, which it would refuse, gets a hash.

## Where the state is

The outbox (`outbox.db`) and the embedded Honcho (`memory.db`) are in `$HONCHO_EXEC_HOME`; if that is not set, in
`honcho_exec/` below the host's folder (`$HERMES_HOME`); else in `~/.honcho/exec/`. The most explicit wins. The
folder is made with mode 0700, the files with 0600.

## What bounds every wait

| wait | bounded by |
| --- | --- |
| one request, to its last byte | `HONCHO_TIMEOUT`, on the wall clock, even when the server drips bytes |
| a request and its retries | `HONCHO_RETRY_ATTEMPTS`, `HONCHO_RETRY_DEADLINE`; between two, `HONCHO_RETRY_MAX_WAIT` |
| a tool call, for the pending sync | `HONCHO_SYNC_JOIN_TIMEOUT`; a sync that was waited out is not waited for again |
| a tool call, for its own answer | `HONCHO_RETRY_DEADLINE`; `honcho_reasoning`: `HONCHO_TIMEOUT` |
| the session's end | `HONCHO_SYNC_JOIN_TIMEOUT` |
| `shutdown()` | `HONCHO_SHUTDOWN_TIMEOUT`, and at most a second to cut off what hangs |
| giving a turn, injecting before a turn, starting | nothing is waited for |
"""


def page() -> str:
    """The page's text."""
    rows = ["| variable | key in the file | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        declared = extra(name)
        keys = [to_camel(name), *declared["file"]]
        unit = f" {declared['unit']}" if declared["unit"] else ""
        shown = _shown(field.default)
        default = shown if shown == "-" else shown + unit
        rows.append(f"| {_code(variables(name))} | {_code(keys)} | {default} | {field.description} |")
    return INTRODUCTION + "\n".join(rows) + "\n" + STATE


def _code(names: object) -> str:
    return ", ".join(f"`{name}`" for name in names)  # type: ignore[attr-defined] # any iterable of names


def _shown(value: object) -> str:
    if value is None or value == "" or isinstance(value, SecretStr):
        return "-"
    if isinstance(value, BaseModel):
        return "-"
    if isinstance(value, bool | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    import make_schema

    PAGE.write_text(page(), encoding="utf-8")
    make_schema.FILE.write_text(make_schema.text(), encoding="utf-8")
