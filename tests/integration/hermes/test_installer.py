from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import honcho_exec
from honcho_exec.cli.hermes.dashboard import schema_source
from honcho_exec.cli.hermes.installer import Installed, install, uninstall
from honcho_exec.errors import StateError
from honcho_exec.settings import Settings

SOURCE = Path(honcho_exec.__file__).parent / "hermes" / "plugin"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_install_writes_the_files_of_the_package_and_the_schema(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "honcho_exec"
    assert install(tmp_path) == Installed(folder, changed=True, active=False)
    assert names_in(folder) == {"__init__.py", "cli.py", "config_schema.py", "plugin.yaml"}
    for name in names_in(folder) - {"config_schema.py"}:
        assert (folder / name).read_bytes() == (SOURCE / name).read_bytes()
    assert (folder / "config_schema.py").read_text(encoding="utf-8") == schema_source()


@pytest.mark.host
def test_a_built_package_has_the_schema_for_its_entry_point(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    built = tmp_path / "honcho_exec" / "hermes" / "plugin"
    assert {"__init__.py", "cli.py", "config_schema.py", "plugin.yaml"} <= names_in(built)
    schema = runpy.run_path(str(built / "config_schema.py"))["CONFIG_SCHEMA"]
    assert (schema.name, len(schema.fields)) == ("honcho_exec", len(Settings.model_fields))


def test_a_second_install_changes_nothing(tmp_path: Path) -> None:
    first = install(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert not install(tmp_path).changed
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_an_older_copy_is_updated(tmp_path: Path) -> None:
    folder = install(tmp_path).folder
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace(honcho_exec.__version__, "0.0.1"))
    assert install(tmp_path).changed
    assert manifest.read_bytes() == (SOURCE / "plugin.yaml").read_bytes()


def test_an_interrupted_install_is_finished_or_removed(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "honcho_exec"
    folder.mkdir(parents=True)
    (folder / ".plugin.yaml.123.new").write_text("name: hon")
    assert install(tmp_path).changed
    (folder / "__init__.py").unlink()
    assert install(tmp_path).changed
    assert uninstall(tmp_path).changed
    assert not folder.exists()


@pytest.mark.parametrize("name", ["__init__.py", "plugin.yaml", "notes.txt"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "plugins" / "honcho_exec"
    folder.mkdir(parents=True)
    (folder / name).write_text("somebody else's")
    with pytest.raises(StateError, match=r"honcho_exec holds .* move it away first"):
        install(tmp_path)
    assert names_in(folder) == {name}
    assert (folder / name).read_text() == "somebody else's"


@pytest.mark.parametrize("name", ["__init__.py", "plugin.yaml"])
def test_another_plugin_is_not_removed(tmp_path: Path, name: str) -> None:
    folder = install(tmp_path).folder
    (folder / name).write_text("somebody else's")
    with pytest.raises(StateError, match="another plugin"):
        uninstall(tmp_path)
    assert names_in(folder) == {"__init__.py", "cli.py", "config_schema.py", "plugin.yaml"}


def test_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "honcho_exec").symlink_to(SOURCE)
    for act in (install, uninstall):
        with pytest.raises(StateError, match="not a folder"):
            act(tmp_path)
    (plugins / "honcho_exec").unlink()
    (plugins / "honcho_exec").touch()
    with pytest.raises(StateError, match="not a folder"):
        install(tmp_path)
    assert SOURCE.joinpath("__init__.py").exists()


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "plugins").touch()
    with pytest.raises(StateError, match="cannot be changed"):
        install(tmp_path)


def test_uninstall_removes_what_was_installed_and_its_cache(tmp_path: Path) -> None:
    folder = install(tmp_path).folder
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "__init__.cpython-311.pyc").touch()
    assert uninstall(tmp_path) == Installed(folder, changed=True, active=False)
    assert not folder.exists()
    assert uninstall(tmp_path) == Installed(folder, changed=False, active=False)


def test_uninstall_keeps_other_files(tmp_path: Path) -> None:
    folder = install(tmp_path).folder
    (folder / "notes.txt").write_text("mine")
    assert uninstall(tmp_path).changed
    assert names_in(folder) == {"notes.txt"}
    assert not uninstall(tmp_path).changed


@pytest.mark.parametrize(
    ("config", "active"),
    [
        ("memory:\n  provider: honcho_exec\n", True),
        (
            "model:\n  provider: x\n\nmemory:   # mine\n    enabled: true\n    provider: 'honcho_exec' # yes\nz: 1\n",
            True,
        ),
        ('"memory":\n  "provider": "honcho_exec"\n', True),
        ("memory: {memory_enabled: true, provider: honcho_exec}\n", True),
        ("memory: {\n  provider: honcho_exec\n}\n", True),
        ("memory:\n  provider: honcho\n", False),
        ("memory:\n  provider: ''\n", False),
        ("memory:\n  # provider: honcho_exec\n  provider: honcho\n", False),
        ("memory:\n  honcho:\n    provider: honcho_exec\n  provider: mem0\n", False),
        ("memory:\n  honcho:\n    provider: honcho_exec\n", False),
        ("model:\n  provider: honcho_exec\nmemory:\n  memory_enabled: true\n", False),
        ("memory:\nother:\n  provider: honcho_exec\n", False),
        ("memory: {provider: honcho}\nother: {provider: honcho_exec}\n", False),
        ("", False),
        ("\xff: [", False),
    ],
)
def test_whether_the_host_uses_it_is_read_from_its_configuration(tmp_path: Path, config: str, active: bool) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(config.encode("latin-1"))
    assert install(tmp_path).active is active
    assert uninstall(tmp_path).active is active
    assert path.read_bytes() == config.encode("latin-1")


def test_the_manifest_has_the_packages_version() -> None:
    assert f"version: {honcho_exec.__version__}\n" in (SOURCE / "plugin.yaml").read_text()


def test_install_works_without_the_host(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; sys.modules.update(agent=None, hermes_cli=None, hermes_constants=None)\n"
        "from honcho_exec.cli.hermes.installer import install; print(install(Path(sys.argv[1])).changed)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
