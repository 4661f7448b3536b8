"""Sessions that check the project. `nox -l` lists them, `.ci/run` runs what CI needs.

`nox -R -s SESSION` skips the installation if the session has run before.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

nox.needs_version = ">=2026.10"
nox.options.sessions = ["lint", "types", "docs", "test"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.allow_parallel = True

# A shim of pyenv fails unless its version is selected; the interpreters themselves do not.
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
os.environ["PATH"] = os.pathsep.join([*map(str, _PYENV.glob("3.1[2-9]*/bin")), os.environ["PATH"]])

ENVIRONMENT = Path(".nox", "environment", "bin")
TOOLS = Path(".nox", "tools", "bin")

# Tests whose result may depend on the Python or the SDK: threads, exits, forks, sockets, requests.
PORTABLE = (
    *("tests/unit/runtime", "tests/unit/net", "tests/unit/client"),
    *(f"tests/integration/test_{name}.py" for name in ("forks", "race")),
)
# The oldest supported SDK is tried with all that uses it, and with all that reads what it writes.
OLDEST_SDK = "honcho-ai==2.2.0"
SDK_TESTS = ("tests/unit/delivery", "tests/unit/outbox", "tests/unit/embedded")
# How long calls, starts and exits take is measured only by the session `timing`, which runs alone.
TIMED = Path("tests", "integration", "test_promises.py")


@contextmanager
def source() -> Iterator[str]:
    """Copy what a build needs, because concurrent builds in one folder disturb each other."""
    with TemporaryDirectory() as folder:
        for file in ("setup.cfg", "setup.py", "README.md", "LICENSE"):
            shutil.copy(file, folder)
        shutil.copytree("honcho_exec", Path(folder, "honcho_exec"), ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@nox.session(reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Install the package as the README's test command does."""
    with source() as package:
        session.install(f"{package}[test]")


@nox.session(reuse_venv=True)
def tools(session: nox.Session) -> None:
    """Install the package with the development tools."""
    with source() as package:
        session.install(f"{package}[dev,docs]")


@nox.session(python=False, requires=["environment"])
def test(session: nox.Session) -> None:
    """Run the README's test command."""
    session.run(str(ENVIRONMENT / "pytest"), *session.posargs)


@nox.session(python=False, requires=["environment"])
def timing(session: nox.Session) -> None:
    """Measure how long calls, starts and exits take; run nothing else meanwhile."""
    session.run(str(ENVIRONMENT / "pytest"), "-q", "-m", "slow", str(TIMED))


@nox.session(python=False, requires=["tools"])
def lint(session: nox.Session) -> None:
    """Check style, format and the imports between folders."""
    session.run(str(TOOLS / "ruff"), "check", ".")
    session.run(str(TOOLS / "ruff"), "format", "--check", ".")
    session.run(str(TOOLS / "lint-imports"))


@nox.session(python=False, requires=["tools"])
def types(session: nox.Session) -> None:
    """Check types strictly."""
    session.run(str(TOOLS / "mypy"))


@nox.session(python=False, requires=["tools"])
def docs(session: nox.Session) -> None:
    """Build the site; warnings are errors."""
    session.run(str(TOOLS / "sphinx-build"), "-q", "-W", "--keep-going", "docs", "site")


@nox.session(python=False, requires=["tools"])
def contract(session: nox.Session) -> None:
    """Check every answer of the embedded Honcho against the server's OpenAPI document."""
    session.run(str(TOOLS / "pytest"), "-q", "-m", "slow", "tests/integration/test_openapi.py")


@nox.session(python=False, requires=["environment"])
def reliability(session: nox.Session) -> None:
    """Kill processes, run the state machines, and soak for a moment."""
    session.run(
        str(ENVIRONMENT / "pytest"),
        "-q",
        "-m",
        "slow",
        "tests",
        "--ignore=tests/integration/hermes",
        f"--ignore={TIMED}",
    )
    session.run(str(ENVIRONMENT / "python"), "tests/tools/soak.py", "--seconds", "10", "--seed", "1")


@nox.session(python=False, requires=["environment"])
def host(session: nox.Session) -> None:
    """Run whole processes of the real Hermes Agent."""
    session.run(str(ENVIRONMENT / "pytest"), "-q", "-m", "host and slow", "tests/integration/hermes")


@nox.session(python=False, requires=["environment"])
def clients(session: nox.Session) -> None:
    """Install the official clients from their registries and try them with a served Honcho."""
    tests = Path("tests", "integration", "clients")
    without = []
    if shutil.which("npm") is None:
        without = [f"--ignore={tests / 'test_javascript.py'}"]
        session.warn("npm is not on this machine: the TypeScript SDK is not tried")
    session.run(str(ENVIRONMENT / "pytest"), "-q", "-m", "clients", *without, str(tests))


@nox.session(python=["3.12", "3.13"])
def portable(session: nox.Session) -> None:
    """Try what may differ on another Python, and the oldest supported SDK."""
    oldest = session.python == "3.13"
    with source() as package:
        session.install(package, OLDEST_SDK if oldest else "honcho-ai", "pytest", "hypothesis", "prometheus-client")
    session.run("pytest", "-q", *PORTABLE, *(SDK_TESTS if oldest else ()))


@nox.session(python=False)
def python314(session: nox.Session) -> None:
    """Try what may differ on Python 3.14, if need be in a Debian of its own."""
    interpreter = shutil.which("python3.14")
    if interpreter is not None:
        with TemporaryDirectory() as folder, source() as package:
            session.run(interpreter, "-m", "venv", folder)
            session.run(f"{folder}/bin/pip", "install", "-q", f"{package}[test]")
            session.run(f"{folder}/bin/pytest", "-q", *PORTABLE, *SDK_TESTS)
    elif sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        with TemporaryDirectory() as folder:
            in_next_debian(session, Path(folder))
    else:
        session.warn("Python 3.14 is not tried: it is not on this machine, and only root on a Debian can fetch it")


def in_next_debian(session: nox.Session, root: Path) -> None:
    """Install Debian's next release, which has Python 3.14, into a folder and run the tests there."""
    if shutil.which("debootstrap") is None:
        session.run("apt-get", "update", "-qq", silent=True)
        session.run("apt-get", "install", "-y", "-qq", "debootstrap", silent=True)
    release = ("--variant=minbase", "--include=python3,python3-venv", "forky")
    # An older debootstrap does not know the release; all of them are made by the script of `sid`.
    script = "/usr/share/debootstrap/scripts/sid"
    session.run("debootstrap", *release, str(root), "http://deb.debian.org/debian", script, silent=True)
    for file in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(file).exists():
            (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file[1:])
    shutil.copytree(".", root / "src", ignore=shutil.ignore_patterns(".[!c]*", "__pycache__", "site", "build"))
    inherited = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    session.run(
        *("unshare", "--mount", "chroot", str(root), "sh", "-euc"),
        "mount -t proc proc /proc; mount -t devpts devpts /dev/pts -o ptmxmode=666; cd /src;"
        " python3 -m venv /venv; /venv/bin/pip install -q .[test];"
        ' exec /venv/bin/pytest -q -p no:cacheprovider "$@"',
        *("sh", *PORTABLE, *SDK_TESTS),
        env=inherited | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
        include_outer_env=False,
    )


@nox.session
def build(session: nox.Session) -> None:
    """Build an sdist and a wheel into dist/, ready to be uploaded."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    with source() as package:
        session.run("python", "-m", "build", "--outdir", "dist", package)
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session(python=False, requires=["environment"])
def bench(session: nox.Session) -> None:
    """Compare with the host's bundled provider; `-- --write` updates docs/benchmarks.md."""
    session.run(str(ENVIRONMENT / "python"), "tests/tools/side_by_side.py", *session.posargs)


@nox.session(python=False, requires=["environment"])
def full(session: nox.Session) -> None:
    """Run what takes too long for CI: a long soak, every protection taken out, more examples."""
    session.run(str(ENVIRONMENT / "python"), "tests/tools/soak.py", "--seconds", "120")
    session.run(str(ENVIRONMENT / "python"), "tests/tools/protections.py")
    session.run(str(ENVIRONMENT / "pytest"), "-q", "-m", "slow", "--hypothesis-profile=long", "tests/reliability")
