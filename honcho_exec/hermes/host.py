"""Ask Hermes Agent: its environment, its active profile, the titles of its sessions, its query rewriter.

Older hosts lack some of these modules, so they are imported when they are used.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping

from hermes_constants import get_hermes_home

__all__ = ["active_profile", "environment", "rewrite_query", "session_title"]


def environment() -> Mapping[str, str]:
    """Return the environment of the active profile, which follows later changes.

    A gateway that serves several profiles keeps the variables of each apart. Honcho's variables in the environment of
    such a process belong to another profile, and are left out.
    """
    home = {"HERMES_HOME": str(get_hermes_home())}
    try:
        from agent.secret_scope import current_secret_scope, is_multiplex_active  # noqa: PLC0415 - not in every host
    except ImportError:
        return ChainMap(home, os.environ)
    secrets = dict(current_secret_scope() or {})
    if not is_multiplex_active():
        return ChainMap(home, secrets, os.environ)
    return {name: value for name, value in os.environ.items() if "HONCHO_" not in name} | secrets | home


def active_profile() -> str | None:
    """Return the name of the active profile, None if the host has no profiles."""
    try:
        from hermes_cli.profiles import get_active_profile_name  # noqa: PLC0415 - not in every host
    except ImportError:
        return None
    return str(get_active_profile_name() or "") or None


def session_title(session_id: str) -> dict[str, str]:
    """Return a session's title and who gave it, as `initialize` takes them; empty if the host does not know it.

    The host passes them to `initialize`, but not when it switches sessions.
    """
    try:
        from hermes_state import SessionDB  # noqa: PLC0415 - not in every host
    except ImportError:
        return {}
    path = get_hermes_home() / "state.db"
    if not path.exists():
        return {}
    database = SessionDB(path, read_only=True)
    try:
        title = str(database.get_session_title(session_id) or "")
        # Only newer hosts know who gave it.
        source_of = getattr(database, "get_session_title_source", lambda _: "")
        return {"session_title": title, "session_title_source": str(source_of(session_id) or "")}
    finally:
        database.close()


def rewrite_query(message: str) -> str:
    """Rewrite a user's message as a question to a memory; empty if the host cannot."""
    try:
        from plugins.memory.query_rewrite import rewrite_memory_query  # noqa: PLC0415 - not in every host
    except ImportError:
        return ""
    return str(rewrite_memory_query(message) or "")
