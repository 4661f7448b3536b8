"""`hermes memory setup`: ask where to keep the memory, save the answers, and try it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

from hermes_cli.config import save_config, save_env_value
from hermes_cli.secret_prompt import masked_secret_prompt

from honcho_exec.errors import ConfigurationError, HonchoExecError
from honcho_exec.provider.provider import HonchoProvider
from honcho_exec.settings import EMBEDDED, Settings, load, variables
from honcho_exec.settings.names import safe_id

__all__ = ["walk_through"]

_NAME = "honcho_exec"
_URL, _KEY, _PEER = (variables(name)[0] for name in ("base_url", "api_key", "peer_name"))
_PLACES = ("on this machine, without any server", "on a Honcho server of yours", "in Honcho's cloud")
_CLOUD = "https://api.honcho.dev"
_BACKENDS = ("embedded", "server", "cloud")


def walk_through(environ: Mapping[str, str], profile: str | None, config: dict[str, Any]) -> None:
    """Ask, save the answers in the host's `.env`, and choose this provider in `config`, which is saved.

    An empty answer keeps the current value. Exceptions pass: the host shows them to the person.
    """
    settings = _settings(environ, profile)
    _say("Honcho memory: durable, exactly once, never in the way.", "")
    choice = _choice(settings)
    answers = _answers(choice, settings)
    name = _asked("What are you called in it?", settings.peer_name or "")
    if name and name != settings.peer_name:
        answers[_PEER] = peer = _peer(name)
        if peer != name:
            _say(f"Honcho's names have letters without accents, digits, - and _; you are called {peer} there.")
    # Unusable values are refused before anything is saved.
    load({**environ, **answers}, profile=profile)
    for name, value in answers.items():
        save_env_value(name, value)
    config.setdefault("memory", {})["provider"] = _NAME
    save_config(config)
    _say("", "Saved: memory.provider in config.yaml, and the rest in .env.")
    _try(environ, profile, answers)


def _settings(environ: Mapping[str, str], profile: str | None) -> Settings:
    try:
        return load(environ, profile=profile).settings
    except ConfigurationError as error:
        _say("What is set now cannot be used:", *(f"  {problem}" for problem in error.problems), "")
        return Settings()


def _choice(settings: Settings) -> int:
    now = _BACKENDS.index(settings.backend)
    _say("Where should the memory be?", *(f"  {number}. {choice}" for number, choice in enumerate(_PLACES, 1)))
    while True:
        answer = _asked("1, 2 or 3", str(now + 1))
        if answer in {"1", "2", "3"}:
            return int(answer) - 1
        _say("Please say 1, 2 or 3.")


def _answers(choice: int, settings: Settings) -> dict[str, str]:
    """Return the variables to set, without those that are right already."""
    if choice == _BACKENDS.index("embedded"):
        return {} if settings.backend == "embedded" else {_URL: EMBEDDED}
    answers: dict[str, str] = {}
    if choice == _BACKENDS.index("server"):
        now = settings.shown_url if settings.backend == "server" else "http://localhost:8000"
        url = _url(now)
        if settings.backend != "server" or url != now:
            answers[_URL] = url
        hint = "empty: none, or the one that is set"
    else:
        if settings.base_url is not None:
            answers[_URL] = _CLOUD
        hint = "https://app.honcho.dev; empty: the one that is set"
    if key := _key(hint):
        answers[_KEY] = key
    elif choice == _BACKENDS.index("cloud") and settings.api_key is None:
        _say("None is set, and Honcho's cloud takes nothing without one.")
        if not (key := _key("https://app.honcho.dev")):
            raise ConfigurationError("Honcho's cloud needs an API key; nothing was changed")
        answers[_KEY] = key
    return answers


def _key(hint: str) -> str:
    return str(masked_secret_prompt(f"  API key ({hint}): ")).strip()


def _url(now: str) -> str:
    """Ask for the server's URL until it is one; the current URL is accepted unchecked."""
    while (url := _asked("Its URL", now)) != now:
        try:
            if load({_URL: url}).settings.base_url != EMBEDDED:
                return url
            _say("That is not a server; 1 keeps memory on this machine. A URL is, for example, http://localhost:8000.")
        except ConfigurationError as error:
            _say(*error.problems)
    return url


def _peer(name: str) -> str:
    """Return the peer of a name: without accents, and a digest if characters are left that Honcho refuses."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    joined = "-".join(plain.split())
    return joined if safe_id(joined) == joined else safe_id(name).lstrip("-")


def _try(environ: Mapping[str, str], profile: str | None, answers: Mapping[str, str]) -> None:
    """Make a real request, and print the result."""
    provider = HonchoProvider(environ={**environ, **answers}, profile=profile)
    try:
        provider.initialize()
        seen = provider.status()
    except HonchoExecError as error:
        _say(f"It does not work yet: {error}", "hermes honcho_exec doctor says what to do.")
        return
    finally:
        provider.shutdown()
    if seen.ok:
        where = "on this machine" if seen.backend == "embedded" else f"in {seen.url}"
        _say(f"It works: memory is kept {where}, in the workspace {seen.workspace}.")
    else:
        why = seen.problem or seen.last_error or "Honcho does not answer"
        _say(f"It does not work yet: {why}", "hermes honcho_exec doctor says what to do.")


def _asked(label: str, default: str) -> str:
    _write(f"  {label}{f' [{default}]' if default else ''}: ")
    return sys.stdin.readline().strip() or default


def _say(*lines: str) -> None:
    for line in lines:
        _write(f"  {line}".rstrip() + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
