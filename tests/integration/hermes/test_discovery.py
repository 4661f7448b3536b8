from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import honcho_exec

if TYPE_CHECKING:
    from conftest import Host


DISCOVER = """
import json, sys

opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)

from plugins.memory import discover_memory_providers, load_memory_provider

provider = load_memory_provider("honcho_exec")
row = next(row for row in discover_memory_providers() if row[0] == "honcho_exec")
from hermes_cli.plugins import PluginManager
print(json.dumps({
    "class": type(provider).__name__,
    "base": provider.__class__.__mro__[1].__module__,
    "name": provider.name,
    "available": provider.is_available(),
    "row": row,
    "tools": [schema["name"] for schema in provider.get_tool_schemas()],
    "imported": [name for name in ("honcho", "falcon") if name in sys.modules],
    "opened": opened,
}))
"""

# What hosts that read entry points do: the package's folder is the provider's, loaded under another name.
LOAD_TWICE = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path

(entry,) = importlib.metadata.entry_points(group="hermes_agent.memory_providers", name="honcho_exec")
installed = entry.load()
origin = Path(importlib.util.find_spec(entry.value).origin)
spec = importlib.util.spec_from_file_location("_other.plugin__source_0", origin, submodule_search_locations=[])
again = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(again)
providers = []


class Context:
    register_memory_provider = providers.append


for module in (installed, again):
    module.register(Context)
print(json.dumps({
    "modules": len({id(installed), id(again)}),
    "classes": [type(provider).__module__ for provider in providers],
    "same": type(providers[0]) is type(providers[1]),
    "instances": len(set(map(id, providers))),
    "found": any(word in origin.read_text()[:8192] for word in ("MemoryProvider", "register_memory_provider")),
}))
"""

# As in a Python that does not have the package.
MISSING = """
import json, logging, sys

sys.modules["honcho_exec"] = None
messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append((record.levelname, record.getMessage()))
logging.getLogger().addHandler(handler)

from agent.memory_manager import MemoryManager
from plugins.memory import load_memory_provider

provider = load_memory_provider("honcho_exec")
manager = MemoryManager()
manager.add_provider(provider)
manager.initialize_all("s1", platform="cli")
print(json.dumps({
    "available": provider.is_available(),
    "status": provider.get_status_config({}),
    "tools": manager.get_all_tool_schemas(),
    "warnings": [text for level, text in messages if level == "WARNING"],
    "python": sys.executable,
}))
"""

SET_UP = """
import json, os
from pathlib import Path
from plugins.memory import load_memory_provider

provider = load_memory_provider("honcho_exec")
schema = {field["key"]: field for field in provider.get_config_schema()}
home = os.environ["HERMES_HOME"]
provider.save_config({"base_url": "http://localhost:8123", "api_key": "never"}, home)
provider.save_config({"base_url": ""}, home)
print(json.dumps({
    "variables": {key: [field["env_var"], field.get("secret", False)] for key, field in schema.items()},
    "kept": Path(home, ".env").read_text(),
    "status": load_memory_provider("honcho_exec").get_status_config({}),
}))
"""


def test_the_host_finds_the_plugin_without_the_sdk_or_the_network(host: Host) -> None:
    found = host.python(DISCOVER)
    assert (found["class"], found["base"]) == ("HonchoExecMemoryProvider", "agent.memory_provider")
    assert (found["name"], found["available"]) == ("honcho_exec", True)
    name, description, available = found["row"]
    assert (name, available) == ("honcho_exec", True)
    assert "Honcho" in description
    assert found["tools"] == [
        "honcho_profile",
        "honcho_search",
        "honcho_reasoning",
        "honcho_context",
        "honcho_conclude",
    ]
    assert (found["imported"], found["opened"]) == ([], [])


def test_the_entry_points_package_may_be_loaded_twice(host: Host) -> None:
    loaded = host.python(LOAD_TWICE)
    assert loaded == {
        "modules": 2,
        "classes": ["honcho_exec.hermes.adapter"] * 2,
        "same": True,
        "instances": 2,
        "found": True,
    }


def test_a_python_without_the_package_says_so(host: Host) -> None:
    seen = host.python(MISSING)
    assert (seen["available"], seen["tools"]) == (False, [])
    (warning,) = seen["warnings"]
    for text in (warning, seen["status"]["problem"]):
        assert f"{seen['python']} -m pip install honcho_exec" in text


def test_what_is_set_up_through_the_host_is_kept_and_used(host: Host) -> None:
    done = host.python(SET_UP)
    assert done["variables"] == {"api_key": ["HONCHO_API_KEY", True], "base_url": ["HONCHO_BASE_URL", False]}
    assert "HONCHO_BASE_URL=http://localhost:8123" in done["kept"]
    assert "never" not in done["kept"]
    assert (done["status"]["backend"], done["status"]["url"]) == ("server", "http://localhost:8123")


def test_the_hosts_status_names_the_backend_or_the_mistake(host: Host) -> None:
    shown = host.hermes("memory", "status")
    assert "backend: embedded" in shown
    assert f"state: {host.state}" in shown
    assert "available ✓" in shown
    shown = host.hermes("memory", "status", settings={"HONCHO_BASE_URL": "localhost"})
    assert "problem: HONCHO_BASE_URL: must be an http:// or https:// URL" in shown


def test_the_package_has_the_version_that_it_says() -> None:
    assert version("honcho_exec") == honcho_exec.__version__
