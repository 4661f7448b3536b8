"""Make messages of what a program passes to the provider."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec

from honcho_exec.delivery.futures import done, failed
from honcho_exec.errors import Disabled, HonchoExecError, InputError
from honcho_exec.model import Message, Receipt, SessionRef
from honcho_exec.settings import Settings
from honcho_exec.settings.names import safe_id
from honcho_exec.text.cleaning import harmless
from honcho_exec.text.host_notices import spoken
from honcho_exec.text.messages import as_messages
from honcho_exec.text.validation import require_name, require_string, require_text

__all__ = ["author", "errors_in_future", "key_of", "turn_messages"]

P = ParamSpec("P")


def errors_in_future(write: Callable[P, Future[Receipt]]) -> Callable[P, Future[Receipt]]:
    """Have a write raise nothing: its Future fails, or is done if memory is switched off."""

    @functools.wraps(write)
    def run(*args: P.args, **kwargs: P.kwargs) -> Future[Receipt]:
        try:
            return write(*args, **kwargs)
        except Disabled:
            return done(Receipt(0))
        except HonchoExecError as error:
            return failed(error)

    return run


def turn_messages(
    ref: SessionRef, user_content: object, assistant_content: object, settings: Settings
) -> list[Message]:
    """Return a turn as messages, as far as the settings have it stored.

    Raises:
        InputError: the contents are no text.
    """
    contents = [(ref.user_peer, spoken(require_text(user_content, "user_content")))]
    if settings.save_assistant_messages:
        contents.append((ref.ai_peer, require_text(assistant_content, "assistant_content")))
    if not settings.save_messages:
        return []
    return [message for peer, text in contents for message in as_messages(peer, text, settings)]


def author(ref: SessionRef, role: str, name: str | None) -> str:
    """Return the peer of a remembered message.

    Raises:
        InputError: there is no such role, or the name is blank.
    """
    if role not in ("user", "assistant"):
        raise InputError("`role` must be user or assistant")
    if name is not None and name != "":
        return safe_id(require_name(name, "name"))
    return ref.user_peer if role == "user" else ref.ai_peer


def key_of(source_key: str | None) -> str | None:
    """Return a source key as it is stored; an empty one counts as None."""
    return None if source_key is None else harmless(require_string(source_key, "source_key")) or None
