"""Name the workspace, the session and the peers of a conversation.

Chosen names are peers, aliases, the `sessions` map, titles and directories. Identifiers that other people can
influence are a gateway's chat keys and user ids, and names that a program passes; see `names`.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from honcho_exec.model import SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.names import (
    MAX_PEER,
    MAX_SESSION,
    SHORT_DIGEST_CHARS,
    bounded_name,
    digest,
    ends_like_digest,
    mapped_name,
    plain_name,
    replace_unsafe,
    safe_id,
    short_name,
    slug,
    unique_name,
    with_digest,
)

__all__ = [
    "HostContext",
    "SessionChoice",
    "choice_of",
    "is_shared",
    "named_ref",
    "observer_of",
    "resolve",
    "session_and_key",
    "user_peer",
]

# A chat key whose separators can be told from its segments after the separators have become hyphens.
_PLAIN_KEY = re.compile(r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_]+)*")
_WORD = re.compile(r"[a-zA-Z0-9_]+")
# A chat of these kinds may have several human members.
_GROUPS = "group|channel|thread|forum|supergroup|room"
_GROUP_KEY = re.compile(rf"agent:[^:]+:[^:]+:({_GROUPS})(:.*)?", re.DOTALL)
# Names of gateway chats as the host builds their keys, which no title or directory may take.
_GATEWAY_NAME = re.compile(rf"agent-[a-zA-Z0-9_]+-[a-zA-Z0-9_]+-(dm|{_GROUPS})(-.*)?")
_MEMORY_FILES = "memory-files-"

# The kinds of keys: a gateway's chat, a gateway's user (in a directory, or in a run), a name from a program, a single
# person's own name.
_CHAT, _USER, _RUN, _NAME, _SELF = "chat:", "user:", "runs:", "name:", "self:"


@dataclass(frozen=True, slots=True)
class HostContext:
    """A conversation as the host describes it; every field may be empty.

    Attributes:
        session_id: the host's id of this run.
        session: a session name that the program chose; it overrides every other rule.
        session_title_source: `user`, or `derived` or `llm` for a generated title.
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
        """Whether memory is written and injected: not in cron, flush, subagent and read runs."""
        return self.agent_context not in {"cron", "flush", "subagent", "read"} and self.platform != "cron"

    @property
    def chosen_title(self) -> str:
        """The title, if a person gave it; a missing source counts as a person's."""
        return "" if self.session_title_source in {"derived", "llm"} else self.session_title


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """The two sessions that a key can mean; the lane chooses one, see `SessionCache.session`.

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
    """Whether other people may use the same assistant: users of a gateway, unless all are one peer."""
    pinned = settings.pin_user_peer and settings.peer_name is not None
    return not pinned and bool(context.user_id or context.user_id_alt or context.gateway_session_key)


def resolve(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> SessionRef:
    """Name the workspace, the session and both peers of a conversation."""
    peer = user_peer(settings, context, environ)
    session, key = session_and_key(settings, context, peer)
    return SessionRef(
        workspace=short_name(settings.workspace, limit=MAX_PEER),
        session=session,
        user_peer=peer,
        ai_peer=plain_name(settings.ai_peer),
        key=key,
    )


def named_ref(ref: SessionRef, name: str) -> SessionRef:
    """Return the session that a program chose by name, with the peers of `ref`."""
    session = safe_id(name)
    return SessionRef(ref.workspace, session, ref.user_peer, ref.ai_peer, "" if session == name else _NAME + name)


def choice_of(ref: SessionRef) -> SessionChoice:
    """Return the two sessions that the key of `ref` can mean."""
    kind, raw = ref.key[: len(_CHAT)], ref.key[len(_CHAT) :]
    if kind == _NAME:
        return SessionChoice(own=ref.session, earlier=short_name(raw))
    if kind != _CHAT:
        own = with_digest(ref.session, f"{raw}\n{ref.session}")
        return SessionChoice(own, earlier=ref.session, is_new=kind != _USER, is_open=kind == _SELF)
    is_plain = _is_plain_key(raw)
    return SessionChoice(
        own=with_digest(slug(raw) or "chat", raw),
        earlier=bounded_name(slug(raw), raw),
        is_new=is_plain,
        is_open=is_plain and _GROUP_KEY.fullmatch(raw) is not None,
    )


def user_peer(settings: Settings, context: HostContext, environ: Mapping[str, str]) -> str:
    """Return the user's peer: pinned name, alias, runtime id, `peerName`, or the system's user."""
    if settings.pin_user_peer and settings.peer_name:
        return plain_name(settings.peer_name)
    # Not stripped: two ids that differ in blanks are two users.
    runtime_ids = [value for value in (context.user_id, context.user_id_alt) if value.strip()]
    for runtime_id in runtime_ids:
        if alias := settings.user_peer_aliases.get(runtime_id, "").strip():
            return plain_name(alias)
    chosen = (settings.peer_name, settings.ai_peer, *settings.user_peer_aliases.values())
    taken = {plain_name(name) for name in chosen if name}
    if settings.peer_name:
        local = plain_name(settings.peer_name)
    else:
        name = plain_name(_system_user(environ))
        # In a container the user is often called like the assistant.
        local = f"{name}-{digest(name, SHORT_DIGEST_CHARS)}" if name in taken else name
    if not runtime_ids:
        return local
    return _runtime_peer(settings.runtime_peer_prefix.strip(), runtime_ids[0], taken | {local})


def _runtime_peer(prefix: str, runtime_id: str, taken: set[str]) -> str:
    """Return a peer that no other runtime id produces, and that no person chose."""
    raw = prefix + runtime_id
    safe = replace_unsafe(raw)
    fits = len(safe) <= MAX_PEER - 1 - SHORT_DIGEST_CHARS
    if safe == raw and fits and safe not in taken and not ends_like_digest(raw, short=True):
        return safe
    if fits and _WORD.fullmatch(runtime_id) and (short := f"{safe}-{digest(raw, SHORT_DIGEST_CHARS)}") not in taken:
        # No other id reads the same after it was made safe, so the digest need not tell ids apart.
        return short
    return with_digest(safe, raw, MAX_PEER)


def observer_of(settings: Settings, ref: SessionRef, peer: str) -> str:
    """Return whose view of a peer is used: the assistant's, or the peer's own if it observes nobody else."""
    return ref.ai_peer if peer == ref.ai_peer or settings.observes(ai=True)[1] else peer


def session_and_key(settings: Settings, context: HostContext, peer: str) -> tuple[str, str]:
    """Return the session's name, and its key if the lane chooses the session; see `SessionRef.key`."""
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
        safe, raw = prefix + plain_name(run), prefix + run
    elif slug(title):
        safe, raw = prefix + slug(title), prefix + title
    elif directory:
        safe, raw = prefix + plain_name(directory), prefix + directory
    else:
        safe, raw = plain_name(settings.workspace), settings.workspace
    name = unique_name(raw) if run and shared else _personal(safe, raw)
    if not shared:
        return name, _SELF + name
    # Several users of a gateway can work in one directory: each gets a session.
    return name, (_RUN if run else _USER) + f"{context.user_id or context.user_id_alt}\n{chat}"


def _chat_name(key: str) -> str:
    """Return the key with hyphens, and with a digest unless no other key gives the same name."""
    return key.replace(":", "-") if _is_plain_key(key) else with_digest(slug(key) or "chat", key)


def _is_plain_key(key: str) -> bool:
    """Whether no other key gives the same name after its colons have become hyphens."""
    plain = key.replace(":", "-")
    reserved = plain.startswith(_MEMORY_FILES) or ends_like_digest(plain)
    return len(plain) <= MAX_SESSION and _PLAIN_KEY.fullmatch(key) is not None and not reserved


def _personal(name: str, raw: str) -> str:
    """Return the name of a person's own session, which must not be that of a gateway's chat."""
    return with_digest(name, raw) if _GATEWAY_NAME.fullmatch(name) else bounded_name(name, raw)


def _directory(settings: Settings, cwd: str) -> str:
    """Return the name of the directory or repository; empty if all conversations are one session."""
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
