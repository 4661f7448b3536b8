"""Name the session of Honcho that each run of the host belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from honcho_exec.model import SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.identity import HostContext, is_shared, resolve

__all__ = ["HostSessions", "working_directory"]

# Turns come late by one or two switches.
_MAX_REFS = 64


class HostSessions:
    """The host's context and the sessions of its last runs.

    Args:
        name: the session's name, if the program chose it.
        environ: the environment, for the rules that use it.
    """

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self._context = HostContext(session=name)
        self._environ = environ
        self._refs: dict[str, SessionRef] = {}

    @property
    def writes(self) -> bool:
        """Whether turns of this context are stored."""
        return self._context.writes

    def is_shared(self, settings: Settings) -> bool:
        """Return whether other people may talk to the same assistant."""
        return is_shared(settings, self._context)

    def begin(self, context: HostContext) -> None:
        """Use the context that the host passed."""
        self._context = replace(context, session=self._context.session)

    def switch(self, session_id: str, *, reset: bool, title: str | None, title_source: str | None) -> None:
        """Go on under another id of the host; see `HonchoProvider.on_session_switch`."""
        context = replace(self._context, session_title="") if reset else self._context
        if title is not None:
            context = replace(context, session_title=title, session_title_source=title_source or "")
        self._context = replace(context, session_id=session_id)

    def current(self, settings: Settings) -> SessionRef:
        """Return the session of the context, and keep it for turns that come late."""
        ref = resolve(settings, self._context, self._environ)
        self._refs[self._context.session_id] = ref
        while len(self._refs) > _MAX_REFS:
            del self._refs[next(iter(self._refs))]
        return ref

    def ref(self, session_id: str, default: SessionRef) -> SessionRef:
        """Return the session of the host's run with that id; `default` if there is no such run."""
        return self._refs.get(session_id, default) if session_id else default


def working_directory() -> str:
    """Return the process's directory; empty if it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
