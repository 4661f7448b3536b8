from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic.alias_generators import to_snake

from honcho_exec.errors import ConfigurationError
from honcho_exec.settings import Settings, load, state_home, variables


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_without_anything_the_embedded_backend_is_in_use(tmp_path: Path) -> None:
    loaded = load({"HOME": str(tmp_path)})
    assert loaded.settings.backend == "embedded"
    assert loaded.settings.workspace == "hermes"
    assert loaded.sources == {}


@pytest.mark.parametrize(
    ("environ", "backend", "url"),
    [
        ({"HONCHO_API_KEY": "k"}, "cloud", "https://api.honcho.dev"),
        ({"HONCHO_API_KEY": "k", "HONCHO_ENVIRONMENT": "local"}, "cloud", "http://localhost:8000"),
        ({"HONCHO_BASE_URL": "http://h:1/v3/"}, "server", "http://h:1"),
        ({"HONCHO_URL": "http://h:1"}, "server", "http://h:1"),
        (
            {"HONCHO_URL": "http://other:1", "HONCHO_BASE_URL": "http://h:1", "HONCHO_API_KEY": "k"},
            "server",
            "http://h:1",
        ),
        ({"HONCHO_BASE_URL": "embedded", "HONCHO_API_KEY": "k"}, "embedded", "embedded"),
        ({"HONCHO_BASE_URL": "  "}, "embedded", "embedded"),
    ],
)
def test_the_backend_is_chosen_by_url_then_key(tmp_path: Path, environ: dict[str, str], backend: str, url: str) -> None:
    settings = load({"HOME": str(tmp_path), **environ}).settings
    assert (settings.backend, settings.backend_url) == (backend, url)


def test_environment_beats_host_block_beats_root_beats_default(tmp_path: Path) -> None:
    write(
        tmp_path / "hermes" / "honcho.json",
        {
            "timeout": 1,
            "retryAttempts": 2,
            "peerName": "root",
            "hosts": {"hermes": {"retryAttempts": 4, "peerName": "block"}},
        },
    )
    loaded = load({"HOME": str(tmp_path), "HERMES_HOME": str(tmp_path / "hermes"), "HONCHO_PEER_NAME": "env"})
    settings = loaded.settings
    assert (settings.peer_name, settings.retry_attempts, settings.timeout) == ("env", 4, 1)
    assert settings.sync_join_timeout == 10
    assert loaded.sources["peer_name"] == "HONCHO_PEER_NAME"
    assert loaded.sources["retry_attempts"].startswith("hosts.hermes.retryAttempts in ")


def test_the_first_file_that_exists_counts(tmp_path: Path) -> None:
    write(tmp_path / ".honcho" / "config.json", {"peerName": "global"})
    environ = {"HOME": str(tmp_path), "HERMES_HOME": str(tmp_path / "hermes")}
    assert load(environ).settings.peer_name == "global"
    write(tmp_path / ".hermes" / "honcho.json", {"peerName": "default profile"})
    assert load(environ).settings.peer_name == "default profile"
    write(tmp_path / "hermes" / "honcho.json", {"peerName": "this home"})
    assert load(environ).settings.peer_name == "this home"


def test_what_older_files_say_is_understood(tmp_path: Path) -> None:
    root = {
        "observationMode": "shared",
        "contextTokens": 0,
        "writeFrequency": 0,
        "runtimePeerPrefix": "telegram_",
        "userPeerAliases": {" 77 ": "ada", "78": 5, "79": None, "80": ""},
        "hosts": {"hermes": {"runtimePeerPrefix": ""}},
    }
    write(tmp_path / ".honcho" / "config.json", root)
    settings = load({"HOME": str(tmp_path)}).settings
    assert (settings.observation_mode, settings.runtime_peer_prefix) == ("unified", "")
    assert (settings.context_tokens, settings.write_frequency) == (None, "async")
    assert settings.user_peer_aliases == {"77": "ada", "78": "5"}
    assert load({"HOME": str(tmp_path), "HONCHO_OBSERVATION_MODE": "cross"}).settings.observation_mode == "directional"


@pytest.mark.parametrize(
    ("environ", "profile", "root", "workspace"),
    [
        ({}, None, {}, "hermes"),
        ({}, "default", {}, "hermes"),
        ({}, "my coder", {}, "hermes_my_coder"),
        ({"HERMES_HONCHO_HOST": "mine"}, "coder", {}, "mine"),
        ({}, None, {"defaultHost": "local"}, "local"),
        ({}, "coder", {"defaultHost": "local"}, "hermes_coder"),
        ({}, "coder", {"hosts": {"hermes.coder": {"workspace": "old"}}}, "old"),
        ({"HONCHO_WORKSPACE": "w"}, "coder", {}, "w"),
    ],
)
def test_the_profile_names_the_workspace_unless_a_setting_does(
    tmp_path: Path, environ: dict[str, str], profile: str | None, root: dict[str, object], workspace: str
) -> None:
    write(tmp_path / ".honcho" / "config.json", root)
    assert load({"HOME": str(tmp_path), **environ}, profile=profile).settings.workspace == workspace


def test_every_bad_value_is_named_at_once_and_no_secret_is_shown(tmp_path: Path) -> None:
    write(
        tmp_path / ".honcho" / "config.json", {"timeout": "soon", "sessions": "x", "hosts": {"hermes": {"aiPeer": 5}}}
    )
    environ = {
        "HOME": str(tmp_path),
        "HONCHO_RETRY_ATTEMPTS": "many",
        "HONCHO_API_KEY": "sk-\u201csecret\u201d",
        "HONCHO_BASE_URL": "htp://x",
        "HONCHO_RECALL_MODE": "loud",
    }
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    text = str(caught.value)
    assert len(caught.value.problems) == 7
    for named in ("HONCHO_RETRY_ATTEMPTS", "HONCHO_API_KEY", "HONCHO_BASE_URL", "HONCHO_RECALL_MODE", "timeout in "):
        assert named in text
    assert "hosts.hermes.aiPeer in " in text
    assert "secret" not in text


@pytest.mark.parametrize("content", ["{not json", "[]", "5"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: str) -> None:
    write(tmp_path / ".honcho" / "config.json", content)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load({"HOME": str(tmp_path)})


def test_a_misspelt_variable_is_warned_of(tmp_path: Path) -> None:
    loaded = load({"HOME": str(tmp_path), "HONCHO_TIMOUT": "5", "HONCHO_SOMETHING_ELSE": "x", "HONCHO_EXEC_HOME": "/x"})
    assert loaded.warnings == ("HONCHO_TIMOUT is not a setting; did you mean HONCHO_TIMEOUT?",)


def test_no_printed_form_shows_the_key() -> None:
    settings = Settings(api_key="sk-secret")  # type: ignore[arg-type] # pydantic makes it a secret
    assert "sk-secret" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_every_setting_has_a_meaning_and_a_variable() -> None:
    names = [variable for name in Settings.model_fields for variable in variables(name)]
    assert len(names) == len(set(names))
    assert all(name.startswith("HONCHO_") for name in names)
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("mode", "observation", "user", "ai"),
    [
        ("directional", {}, (True, True), (True, True)),
        ("unified", {}, (True, False), (False, True)),
        ("unified", {"ai": {"observeMe": True}}, (True, False), (True, True)),
        ("directional", {"user": {"observeOthers": False}}, (True, False), (True, True)),
    ],
)
def test_who_observes_whom(
    tmp_path: Path, mode: str, observation: object, user: tuple[bool, bool], ai: tuple[bool, bool]
) -> None:
    environ = {"HOME": str(tmp_path), "HONCHO_OBSERVATION_MODE": mode, "HONCHO_OBSERVATION": json.dumps(observation)}
    settings = load(environ).settings
    assert (settings.observes(ai=False), settings.observes(ai=True)) == (user, ai)


def test_the_state_is_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_home({}) == tmp_path / ".honcho" / "exec"
    assert state_home({"HERMES_HOME": "/h"}) == Path("/h/honcho_exec")
    assert state_home({"HERMES_HOME": "/h"}, "/given") == Path("/given/honcho_exec")
    assert state_home({"HERMES_HOME": "/h", "HONCHO_EXEC_HOME": "~/mine"}) == tmp_path / "mine"


def test_a_password_in_the_url_is_used_and_never_shown(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path), "HONCHO_BASE_URL": "http://bob:sesame@h:1"}).settings
    assert settings.backend_url == "http://bob:sesame@h:1"
    assert settings.shown_url == "http://h:1"
    with pytest.raises(ConfigurationError) as caught:
        load({"HOME": str(tmp_path), "HONCHO_BASE_URL": "htp://bob:sesame@h:1"})
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h:1?key=hidden", "must not have a query or a fragment"),
        ("http://h:1/#top", "must not have a query or a fragment"),
        ("http://my host:1", "must not hold spaces or control characters"),
        ("http://h\x7f:1", "must not hold spaces or control characters"),
        ("http://a..b", "has a host name that cannot be one"),
        ("http://.", "has a host name that cannot be one"),
        ("http://h,i", "has a host name that cannot be one"),
        ("http://\U0001f600.com", "has a host name that cannot be one"),
        (f"http://{'a' * 64}.com", "has a host name that cannot be one"),
        ("http://[::1", "must be an http:// or https:// URL"),
        ("http://bob:hid den@h:1", "must not hold spaces or control characters"),
        ("http://bob:hid/den@h:1", "has a port that is not a number"),
        ("bob:hid@h:1", "must be an http:// or https:// URL"),
    ],
)
def test_what_is_no_servers_url_is_refused(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^HONCHO_BASE_URL: ") as caught:
        load({"HOME": str(tmp_path), "HONCHO_BASE_URL": url})
    assert why in str(caught.value)
    assert not re.search("hid|den", str(caught.value))


@pytest.mark.parametrize(
    "url", ["http://münchen.example", "http://h.:1", "http://[::1]:8000", "http://my_host/honcho", "http://127.0.0.1:1"]
)
def test_what_is_a_servers_url_is_taken(tmp_path: Path, url: str) -> None:
    assert load({"HOME": str(tmp_path), "HONCHO_BASE_URL": url}).settings.backend_url == url


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HONCHO_TIMEOUT", "soon", "must be a number (it is 'soon')"),
        ("HONCHO_TIMEOUT", "inf", "must be a finite number (it is 'inf')"),
        ("HONCHO_TIMEOUT", "90000", "must be at most 86400 (it is '90000')"),
        ("HONCHO_TIMEOUT", "nan", "must be a finite number (it is 'nan')"),
        ("HONCHO_TIMEOUT", "0", "must be greater than 0 (it is '0')"),
        ("HONCHO_RETRY_ATTEMPTS", "2.5", "must be a whole number (it is '2.5')"),
        ("HONCHO_RETRY_ATTEMPTS", "0", "must be at least 1 (it is '0')"),
        ("HONCHO_RETRY_ATTEMPTS", "21", "must be at most 20 (it is '21')"),
        ("HONCHO_ENABLED", "maybe", "must be true or false (it is 'maybe')"),
        ("HONCHO_RECALL_MODE", "loud", "must be 'hybrid', 'context' or 'tools' (it is 'loud')"),
        ("HONCHO_SESSIONS", "x", "must be a JSON object (it is 'x')"),
        ("HONCHO_SESSIONS", "[1]", "must be a JSON object (it is '[1]')"),
        ("HONCHO_SESSIONS", '{"/x": 5}', "must be a string (it is 5)"),
        ("HONCHO_OBSERVATION", '"x"', "must be a JSON object"),
        ("HONCHO_OBSERVATION", '{"me": true}', "is not known here"),
        ("HONCHO_OBSERVATION", '{"ai": {"observeMe": "perhaps"}}', "must be true or false (it is 'perhaps')"),
    ],
)
def test_a_bad_value_is_told_in_a_plain_sentence(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"HOME": str(tmp_path), variable: value})
    assert str(caught.value).startswith(variable)
    assert f": {said}" in str(caught.value)


def test_a_blank_name_is_no_name(tmp_path: Path) -> None:
    write(tmp_path / ".honcho" / "config.json", {"peerName": "  "})
    with pytest.raises(ConfigurationError, match=r"peerName in .*: must not be empty"):
        load({"HOME": str(tmp_path)})


def test_a_file_that_must_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigurationError, match=r"honcho\.json cannot be read: permission denied") as caught:
        load({"HOME": str(tmp_path)})
    assert "JSON" not in str(caught.value)


@pytest.mark.parametrize("variable", ["HONCHO_EXEC_HOME", "HERMES_HOME"])
def test_the_home_of_nobody_is_an_error_that_names_the_variable(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable}: .*~nosuchuser/x"):
        state_home({variable: "~nosuchuser/x"})
    if variable == "HERMES_HOME":
        with pytest.raises(ConfigurationError, match=f"^{variable}: "):
            load({variable: "~nosuchuser/x"})


def test_no_part_of_an_odd_password_is_shown(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path), "HONCHO_BASE_URL": "http://bob:ses@me@h:1/p@th"}).settings
    assert settings.shown_url == "http://h:1/p@th"


def test_half_a_language_model_is_warned_of(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "HONCHO_LLM_MODEL": "small"}
    assert load(environ).warnings == ("HONCHO_LLM_MODEL has no effect without HONCHO_LLM_BASE_URL",)
    assert load({**environ, "HONCHO_LLM_BASE_URL": "http://h:1/v1"}).warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "used"),
    [
        ("dialecticDepth", 5, 3),
        ("dialecticMaxInputChars", 20_000, 10_000),
        ("messageMaxChars", 50_000, 25_000),
        ("contextCadence", 0, 1),
        ("firstTurnBaseWait", -1, 0),
        ("timeout", 0, 30.0),
        ("dialecticDepthLevels", ["low", "high", "max", "low"], ("low", "high", "max")),
    ],
)
def test_a_number_of_the_file_that_is_out_of_range_is_bent_and_said(
    tmp_path: Path, key: str, value: object, used: object
) -> None:
    write(tmp_path / ".honcho" / "config.json", {key: value})
    loaded = load({"HOME": str(tmp_path)})
    assert loaded.settings.model_dump(by_alias=False)[to_snake(key)] == used
    (warning,) = loaded.warnings
    assert warning.startswith(f"{key} in ")
    assert "is out of range" in warning


def test_what_is_no_number_in_the_file_stays_an_error_beside_it(tmp_path: Path) -> None:
    write(tmp_path / ".honcho" / "config.json", {"dialecticDepth": 5, "timeout": "soon"})
    with pytest.raises(ConfigurationError) as caught:
        load({"HOME": str(tmp_path)})
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["timeout"]
