"""Who and where: names of peers and sessions, made safe for Honcho.

What a person chose (peers, aliases, the assistant, a session in the map) and directories are made safe sign by sign, as
the bundled provider does, so that present users find what they have. What comes from outside (the ids of a gateway's
users) gets a hash where making it safe changed it or it meets a chosen name: nobody becomes somebody else by a name.
"""

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

__all__ = ["HostContext", "is_shared", "observer_of", "resolve", "safe_id", "session_name", "user_peer"]

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_UNSAFE_RUN = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_SESSION = 100
_MAX_PEER = 512
# Digits of a hash: the fewest that meet no chosen name.
_DIGITS = (8, 12, 16, 24, 32, 64)


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
        """Whether this conversation is a person's: cron, flush, subagent and read runs write and inject nothing."""
        return self.agent_context not in {"cron", "flush", "subagent", "read"} and self.platform != "cron"


def is_shared(settings: Settings, context: HostContext) -> bool:
    """Whether other people may talk to the same assistant: the users of a gateway, unless all are one peer."""
    pinned = settings.pin_user_peer and settings.peer_name is not None
    return not pinned and bool(context.user_id or context.user_id_alt or context.gateway_session_key)


def resolve(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> SessionRef:
    """Name the workspace, the session and both peers of a conversation."""
    peer = user_peer(settings, context, environ)
    return SessionRef(
        workspace=safe_id(settings.workspace, limit=_MAX_PEER),
        session=session_name(settings, context, peer),
        user_peer=peer,
        ai_peer=_plain(settings.ai_peer),
    )


def user_peer(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> str:
    """The user's peer: pinned name, alias, prefixed or plain runtime id, `peerName`, the system's user."""
    if settings.pin_user_peer and settings.peer_name:
        return _plain(settings.peer_name)
    runtime_ids = [value.strip() for value in (context.user_id, context.user_id_alt) if value.strip()]
    for runtime_id in runtime_ids:
        if alias := settings.user_peer_aliases.get(runtime_id, "").strip():
            return _plain(alias)
    chosen = (settings.peer_name, settings.ai_peer, *settings.user_peer_aliases.values())
    taken = {_plain(name) for name in chosen if name}
    if runtime_ids:
        return _apart(settings.runtime_peer_prefix.strip() + runtime_ids[0], taken)
    if settings.peer_name:
        return _plain(settings.peer_name)
    name = _plain(_system_user(environ))
    # In a container the user is often called like the assistant.
    return _apart(name, taken) if name in taken else name


def observer_of(settings: Settings, ref: SessionRef, peer: str) -> str:
    """Whose view of a peer counts: the assistant's, or the peer's own where the assistant observes nobody else."""
    return ref.ai_peer if peer == ref.ai_peer or settings.observes(ai=True)[1] else peer


def session_name(settings: Settings, context: HostContext, peer: str) -> str:
    """The session of a conversation, by the first rule that applies."""
    if context.session:
        return safe_id(context.session, limit=_MAX_SESSION)
    prefix = f"{peer}-" if settings.session_peer_prefix else ""
    manual = settings.sessions.get(context.cwd, "").strip()
    title = _UNSAFE_RUN.sub("-", context.session_title).strip("-")
    key = _UNSAFE_RUN.sub("-", context.gateway_session_key).strip("-")
    run = context.session_id if settings.session_strategy == "per-session" else ""
    place = run or _place(settings, context.cwd)
    rules = (
        (_plain(manual), manual),
        (title and prefix + title, prefix + context.session_title),
        (key, context.gateway_session_key),
        (place and prefix + _plain(place), prefix + place),
    )
    return next(
        (_bounded(safe, raw) for safe, raw in rules if safe), _bounded(_plain(settings.workspace), settings.workspace)
    )


def safe_id(raw: str, *, limit: int = _MAX_SESSION) -> str:
    """`raw` as an id that Honcho takes, and that no other `raw` maps to.

    A hash of `raw` is added where making it safe changed it or cut it.

    Raises:
        InputError: it is empty.
    """
    if not raw.strip():
        raise InputError("a peer or session needs a name that is not empty")
    safe = _UNSAFE.sub("-", raw)
    if safe == raw and len(safe) <= limit:
        return safe
    return f"{safe[: limit - 9].rstrip('-')}-{_digest(raw)}".lstrip("-")


def _plain(raw: str) -> str:
    """A chosen name, made safe sign by sign; cut with a hash where it is too long."""
    safe = _UNSAFE.sub("-", raw.strip())
    return safe if len(safe) <= _MAX_PEER else f"{safe[: _MAX_PEER - 9]}-{_digest(raw)}"


def _apart(raw: str, taken: set[str]) -> str:
    """A name from outside, with a hash where making it safe changed or cut it or it meets one of `taken`."""
    safe = _UNSAFE.sub("-", raw)
    if safe == raw and len(safe) <= _MAX_PEER and safe not in taken:
        return safe
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
    hashed = (f"{safe[: _MAX_PEER - 1 - digits]}-{digest[:digits]}" for digits in _DIGITS)
    return next(name for name in hashed if name not in taken)


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
            if (folder / "HEAD").is_file() and (folder / "objects").is_dir():
                # Inside of a repository's own folder, which is in no working tree.
                break
    return here.name


def _system_user(environ: Mapping[str, str]) -> str:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if name := environ.get(variable, "").strip():
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "user"
