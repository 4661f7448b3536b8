"""Who and where: names of peers and sessions, made safe for Honcho."""

from __future__ import annotations

import getpass
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from honcho_exec.errors import InputError
from honcho_exec.model import SessionRef
from honcho_exec.settings import Settings

__all__ = ["HostContext", "observer_of", "resolve", "safe_id", "session_name", "user_peer"]

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_UNSAFE_RUN = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_SESSION = 100
_MAX_PEER = 512


@dataclass(frozen=True, slots=True)
class HostContext:
    """What the host says of a conversation; every field may be empty.

    Attributes:
        session_id: the host's id of this run.
        session: a session name that the program chose itself; nothing else is then looked at.
        cwd: the working directory.
    """

    session_id: str = ""
    session: str = ""
    session_title: str = ""
    gateway_session_key: str = ""
    user_id: str = ""
    user_id_alt: str = ""
    platform: str = ""
    agent_context: str = ""
    cwd: str = ""

    @property
    def writes(self) -> bool:
        """Whether this conversation is a person's: cron, flush and subagent runs write and inject nothing."""
        return self.agent_context not in {"cron", "flush", "subagent"} and self.platform != "cron"


def resolve(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> SessionRef:
    """Name the workspace, the session and both peers of a conversation."""
    peer = user_peer(settings, context, environ)
    return SessionRef(
        workspace=safe_id(settings.workspace, limit=_MAX_PEER),
        session=session_name(settings, context, peer),
        user_peer=peer,
        ai_peer=safe_id(settings.ai_peer, limit=_MAX_PEER),
    )


def user_peer(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> str:
    """The user's peer: pinned name, alias, prefixed or plain runtime id, `peerName`, the system's user."""
    if settings.pin_user_peer and settings.peer_name:
        return _plain(settings.peer_name)
    runtime_ids = [value.strip() for value in (context.user_id, context.user_id_alt) if value.strip()]
    for runtime_id in runtime_ids:
        if alias := settings.user_peer_aliases.get(runtime_id, "").strip():
            return _plain(alias)
    if runtime_ids:
        raw = settings.runtime_peer_prefix.strip() + runtime_ids[0]
        taken = {_plain(name) for name in (settings.peer_name, *settings.user_peer_aliases.values()) if name}
        return safe_id(raw, limit=_MAX_PEER, taken=taken)
    if settings.peer_name:
        return _plain(settings.peer_name)
    return _plain(_system_user(environ))


def observer_of(settings: Settings, ref: SessionRef, peer: str) -> str:
    """Whose view of a peer counts: the assistant's, or the peer's own where the assistant observes nobody else."""
    return ref.ai_peer if peer == ref.ai_peer or settings.observes(ai=True)[1] else peer


def session_name(settings: Settings, context: HostContext, peer: str) -> str:
    """The session of a conversation, by the first rule that applies."""
    if context.session:
        return safe_id(context.session, limit=_MAX_SESSION)
    prefix = f"{peer}-" if settings.session_peer_prefix else ""
    if manual := settings.sessions.get(context.cwd, "").strip():
        return _bounded(_plain(manual), manual)
    if title := _UNSAFE_RUN.sub("-", context.session_title).strip("-"):
        return _bounded(prefix + title, context.session_title)
    if key := _UNSAFE_RUN.sub("-", context.gateway_session_key).strip("-"):
        return _bounded(key, context.gateway_session_key)
    if settings.session_strategy == "per-session" and context.session_id:
        return _bounded(prefix + _plain(context.session_id), context.session_id)
    name = _place(settings, context.cwd)
    return _bounded(prefix + _plain(name), prefix + name) if name else _bounded(_plain(settings.workspace), "")


def safe_id(raw: str, *, limit: int = _MAX_SESSION, taken: set[str] | None = None) -> str:
    """`raw` as an id that Honcho takes, and that no other `raw` maps to.

    A hash of `raw` is added where making it safe changed it, cut it, or met a name in `taken`.

    Raises:
        InputError: it is empty.
    """
    if not raw.strip():
        raise InputError("a peer or session needs a name that is not empty")
    safe = _UNSAFE.sub("-", raw)
    if safe == raw and len(safe) <= limit and safe not in (taken or ()):
        return safe
    return f"{safe[: limit - 9].rstrip('-')}-{_digest(raw)}".lstrip("-")


def _plain(raw: str) -> str:
    return _UNSAFE.sub("-", raw.strip())[:_MAX_PEER]


def _bounded(safe: str, raw: str) -> str:
    return safe if len(safe) <= _MAX_SESSION else f"{safe[: _MAX_SESSION - 9].rstrip('-')}-{_digest(raw)}"


def _digest(raw: str) -> str:
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _place(settings: Settings, cwd: str) -> str:
    """The name of the directory or repository; empty where all conversations are one session."""
    if settings.session_strategy == "global":
        return ""
    here = Path(cwd)
    if settings.session_strategy == "per-repo":
        for folder in (here, *here.parents):
            if (folder / ".git").exists():
                return folder.name
    return here.name


def _system_user(environ: Mapping[str, str]) -> str:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if name := environ.get(variable, "").strip():
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "user"
