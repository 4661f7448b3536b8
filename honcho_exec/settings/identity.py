"""Names of the workspace, the session and the peers of a conversation.

A name that the operator or a single person chose (peers, aliases, the `sessions` map, titles, directories) is made safe
character by character, as Honcho's own plugin does. An identifier that other people can influence (a gateway's chat
keys and user ids, names that a program passes) is kept only if no other identifier can produce it; otherwise a digest
of the original is appended, so that two identifiers never share a name.
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

__all__ = [
    "HostContext",
    "SessionChoice",
    "choice_of",
    "is_shared",
    "mapped_name",
    "named_ref",
    "observer_of",
    "resolve",
    "safe_id",
    "session_name",
    "user_peer",
]

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_UNSAFE_RUN = re.compile(r"[^a-zA-Z0-9_-]+")
# A chat key whose separators can be told from its segments after the separators have become hyphens.
_PLAIN_KEY = re.compile(r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_]+)*")
_MAX_SESSION = 100
_MAX_PEER = 512
# 80 bits: too many to search for a second identifier with the same digest. The length is not a usual one for ids.
_DIGEST_CHARS = 20
_SHORT_DIGEST_CHARS = 8
_ENDS_LIKE_DIGEST = re.compile(rf".*-[0-9a-f]{{{_DIGEST_CHARS}}}", re.DOTALL)
_ENDS_LIKE_ANY_DIGEST = re.compile(rf".*-([0-9a-f]{{{_SHORT_DIGEST_CHARS}}}|[0-9a-f]{{{_DIGEST_CHARS}}})", re.DOTALL)
_WORD = re.compile(r"[a-zA-Z0-9_]+")
# A chat of these kinds may have several human members.
_GROUPS = "group|channel|thread|forum|supergroup|room"
_GROUP_KEY = re.compile(rf"agent:[^:]+:[^:]+:({_GROUPS})(:.*)?", re.DOTALL)
# Names of gateway chats as the host builds their keys, which no title or directory may take.
_GATEWAY_NAME = re.compile(rf"agent-[a-zA-Z0-9_]+-[a-zA-Z0-9_]+-(dm|{_GROUPS})(-.*)?")
_MEMORY_FILES = "memory-files-"

# What a key is made from: a gateway's chat, a gateway's user (in a directory, or in a run), a name from a program, a
# single person's own name.
_CHAT, _USER, _RUN, _NAME, _SELF = "chat:", "user:", "runs:", "name:", "self:"


@dataclass(frozen=True, slots=True)
class HostContext:
    """What the host says of a conversation; every field may be empty.

    Attributes:
        session_id: the host's id of this run.
        session: a session name that the program chose itself; nothing else is then looked at.
        session_title_source: `user`, or `derived` or `llm` for a title that a machine made.
        cwd: the working directory.
    """

    session_id: str = ""
    session: str = ""
    session_title: str = ""
    session_title_source: str = ""
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

    @property
    def chosen_title(self) -> str:
        """The title, if a person gave it; a missing source counts as a person's."""
        return "" if self.session_title_source in {"derived", "llm"} else self.session_title


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """The sessions that a key can go to; the lane decides between them, see `SessionCache.session`.

    Attributes:
        own: a name that no other key has.
        earlier: the name by the rule of earlier versions and of Honcho's own plugin, which others may share; empty if
            they named no session after it.
        is_new: whether the session `earlier` may be created; otherwise it is only continued.
        is_open: whether other people may be members of it.
    """

    own: str
    earlier: str
    is_new: bool = False
    is_open: bool = False


def is_shared(settings: Settings, context: HostContext) -> bool:
    """Whether other people may talk to the same assistant: the users of a gateway, unless all are one peer."""
    pinned = settings.pin_user_peer and settings.peer_name is not None
    return not pinned and bool(context.user_id or context.user_id_alt or context.gateway_session_key)


def resolve(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> SessionRef:
    """Name the workspace, the session and both peers of a conversation."""
    peer = user_peer(settings, context, environ)
    session, key = _session(settings, context, peer)
    return SessionRef(
        workspace=_short(settings.workspace, limit=_MAX_PEER),
        session=session,
        user_peer=peer,
        ai_peer=_plain(settings.ai_peer),
        key=key,
    )


def named_ref(ref: SessionRef, name: str) -> SessionRef:
    """A session that a program chose by name, with the peers of `ref`."""
    session = safe_id(name)
    return SessionRef(ref.workspace, session, ref.user_peer, ref.ai_peer, "" if session == name else _NAME + name)


def choice_of(ref: SessionRef) -> SessionChoice:
    """The sessions between which the lane decides for a `ref` that has a key."""
    kind, raw = ref.key[: len(_CHAT)], ref.key[len(_CHAT) :]
    if kind == _NAME:
        return SessionChoice(own=ref.session, earlier=_short(raw))
    if kind != _CHAT:
        own = _with_digest(ref.session, f"{raw}\n{ref.session}")
        return SessionChoice(own, earlier=ref.session, is_new=kind != _USER, is_open=kind == _SELF)
    is_plain = _is_plain_key(raw)
    return SessionChoice(
        own=_with_digest(_slug(raw) or "chat", raw),
        earlier=_bounded(_slug(raw), raw),
        is_new=is_plain,
        is_open=is_plain and _GROUP_KEY.fullmatch(raw) is not None,
    )


def user_peer(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> str:
    """The user's peer: pinned name, alias, prefixed or plain runtime id, `peerName`, the system's user."""
    if settings.pin_user_peer and settings.peer_name:
        return _plain(settings.peer_name)
    # Not stripped: two ids that differ in blanks are two users.
    runtime_ids = [value for value in (context.user_id, context.user_id_alt) if value.strip()]
    for runtime_id in runtime_ids:
        if alias := settings.user_peer_aliases.get(runtime_id, "").strip():
            return _plain(alias)
    chosen = (settings.peer_name, settings.ai_peer, *settings.user_peer_aliases.values())
    taken = {_plain(name) for name in chosen if name}
    if settings.peer_name:
        local = _plain(settings.peer_name)
    else:
        name = _plain(_system_user(environ))
        # In a container the user is often called like the assistant.
        local = f"{name}-{_digest(name, _SHORT_DIGEST_CHARS)}" if name in taken else name
    if not runtime_ids:
        return local
    return _runtime_peer(settings.runtime_peer_prefix.strip(), runtime_ids[0], taken | {local})


def _runtime_peer(prefix: str, runtime_id: str, taken: set[str]) -> str:
    """The peer of a gateway's user: no other id gives it, and no person chose it."""
    raw = prefix + runtime_id
    safe = _UNSAFE.sub("-", raw)
    fits = len(safe) <= _MAX_PEER - 1 - _SHORT_DIGEST_CHARS
    if safe == raw and fits and safe not in taken and not _ENDS_LIKE_ANY_DIGEST.fullmatch(raw):
        return safe
    if fits and _WORD.fullmatch(runtime_id) and (short := f"{safe}-{_digest(raw, _SHORT_DIGEST_CHARS)}") not in taken:
        # No other id reads the same after it was made safe, so the digest need not tell ids apart.
        return short
    return _with_digest(safe, raw, _MAX_PEER)


def observer_of(settings: Settings, ref: SessionRef, peer: str) -> str:
    """Whose view of a peer counts: the assistant's, or the peer's own where the assistant observes nobody else."""
    return ref.ai_peer if peer == ref.ai_peer or settings.observes(ai=True)[1] else peer


def session_name(settings: Settings, context: HostContext, peer: str) -> str:
    """The session of a conversation, by the first rule that applies."""
    return _session(settings, context, peer)[0]


def mapped_name(raw: str) -> str:
    """The session that a name in the operator's `sessions` map means; empty for an empty one."""
    return _bounded(_plain(raw), raw.strip())


def safe_id(raw: str) -> str:
    """`raw` as an id that Honcho takes, and that no other `raw` maps to.

    Raises:
        InputError: it is empty.
    """
    _require_name(raw)
    return _unique(raw)


def _session(settings: Settings, context: HostContext, peer: str) -> tuple[str, str]:
    """The session's name, and its key if the lane decides where it really is; see `SessionRef.key`."""
    if context.session:
        session = safe_id(context.session)
        return session, "" if session == context.session else _NAME + context.session
    chat = context.gateway_session_key
    if chat.strip(": \t\r\n"):
        return _chat_name(chat), _CHAT + chat
    shared = is_shared(settings, context)
    prefix = f"{peer}-" if settings.session_peer_prefix else ""
    mapped = settings.sessions.get(context.cwd, "")
    run = context.session_id if settings.session_strategy == "per-session" else ""
    title = "" if shared else context.chosen_title
    directory = _directory(settings, context.cwd)
    if mapped_name(mapped) and not run:
        return mapped_name(mapped), ""
    if run:
        safe, raw = prefix + _plain(run), prefix + run
    elif _slug(title):
        safe, raw = prefix + _slug(title), prefix + title
    elif directory:
        safe, raw = prefix + _plain(directory), prefix + directory
    else:
        safe, raw = _plain(settings.workspace), settings.workspace
    name = _unique(raw) if run and shared else _personal(safe, raw)
    if not shared:
        return name, _SELF + name
    # Several users of a gateway can work in one directory: each gets a session.
    return name, (_RUN if run else _USER) + f"{context.user_id or context.user_id_alt}\n{chat}"


def _chat_name(key: str) -> str:
    """The name of a gateway chat: the key with hyphens, and a digest unless only this key produces that."""
    return key.replace(":", "-") if _is_plain_key(key) else _with_digest(_slug(key) or "chat", key)


def _is_plain_key(key: str) -> bool:
    """Whether no other key gives the same name after its colons have become hyphens."""
    plain = key.replace(":", "-")
    reserved = plain.startswith(_MEMORY_FILES) or _ENDS_LIKE_DIGEST.fullmatch(plain)
    return len(plain) <= _MAX_SESSION and _PLAIN_KEY.fullmatch(key) is not None and not reserved


def _personal(name: str, raw: str) -> str:
    """The name of a person's own session, which must not be one of a gateway's chats."""
    return _with_digest(name, raw) if _GATEWAY_NAME.fullmatch(name) else _bounded(name, raw)


def _unique(raw: str) -> str:
    """A session's name that no other `raw` produces."""
    safe = _UNSAFE.sub("-", raw)
    kept = safe == raw and len(safe) <= _MAX_SESSION and not _ENDS_LIKE_DIGEST.fullmatch(safe)
    return safe if kept else _with_digest(safe, raw)


def _with_digest(safe: str, raw: str, limit: int = _MAX_SESSION) -> str:
    return f"{safe[: limit - 1 - _DIGEST_CHARS]}-{_digest(raw, _DIGEST_CHARS)}"


def _short(raw: str, *, limit: int = _MAX_SESSION) -> str:
    """The name of earlier versions: with a short digest if it had to be changed. Not for what others can choose.

    Raises:
        InputError: it is empty.
    """
    _require_name(raw)
    safe = _UNSAFE.sub("-", raw)
    if safe == raw and len(safe) <= limit:
        return safe
    return f"{safe[: limit - 9].rstrip('-')}-{_digest(raw, _SHORT_DIGEST_CHARS)}".lstrip("-")


def _require_name(raw: str) -> None:
    if not raw.strip():
        raise InputError("a peer or session needs a name that is not empty")


def _plain(raw: str) -> str:
    """A chosen name, made safe character by character; cut with a digest if it is too long."""
    safe = _UNSAFE.sub("-", raw.strip())
    return safe if len(safe) <= _MAX_PEER else f"{safe[: _MAX_PEER - 9]}-{_digest(raw, _SHORT_DIGEST_CHARS)}"


def _slug(raw: str) -> str:
    return _UNSAFE_RUN.sub("-", raw).strip("-")


def _bounded(safe: str, raw: str) -> str:
    if len(safe) <= _MAX_SESSION:
        return safe
    return f"{safe[: _MAX_SESSION - 9].rstrip('-')}-{_digest(raw, _SHORT_DIGEST_CHARS)}"


def _digest(raw: str, chars: int) -> str:
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:chars]


def _directory(settings: Settings, cwd: str) -> str:
    """The name of the directory or repository; empty if all conversations are one session."""
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
