"""`memory.provider` in Hermes Agent's `config.yaml`: read, and changed without touching anything else in the file.

Without a YAML library, which is the host's; understands `memory:` as a block or within braces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from honcho_exec.errors import StateError

__all__ = ["may_name", "not_understood", "read_provider", "replace_file", "rewritten", "write_provider"]

_PROVIDER = re.compile(r"""["']?provider["']?\s*:\s*["']?(?P<value>[\w.-]*)["']?$""")
_PROVIDER_INLINE = re.compile(r"""[{,]\s*["']?provider["']?\s*:\s*["']?(?P<value>[\w.-]*)["']?\s*[,}]""")
_LINE = re.compile(r"""(?P<before>\s*["']?provider["']?\s*:)(?P<value>[^#]*?)(?P<after>\s*(?:\s#.*)?)""")
# A line of a file whose root is a block: a key, what is indented below one, a comment, or the file's beginning.
_ROOT = re.compile(r"""\s*(?:#.*)?$|---\s|\s|-\s|["']?[\w.-]+["']?\s*:(?:\s|$)""")
_NOTHING = frozenset({"", "null", "~"})
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


def read_provider(hermes_home: Path) -> str:
    """The memory provider that the host uses; empty where it uses none, or the file cannot be read."""
    try:
        return _provider(_path(hermes_home).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return ""


def write_provider(hermes_home: Path, provider: str) -> None:
    """Make the host use another memory provider; begins the file where there is none.

    Raises:
        StateError: the file cannot be changed, or not without a YAML library.
    """
    changed = rewritten(hermes_home, provider)
    path = _path(hermes_home)
    with _changing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path.resolve(), changed.encode())


def rewritten(hermes_home: Path, provider: str) -> str:
    """The file's text with another memory provider, and everything else in it as it is.

    Raises:
        StateError: the file cannot be read, or not be changed without a YAML library; says what to say to the host.
    """
    path = _path(hermes_home)
    with _changing(path):
        text = path.read_bytes().decode() if path.exists() else ""
    lines = text.splitlines(keepends=True)
    changed = "".join(_changed(lines, provider))
    if not all(map(_ROOT.match, lines)) or _provider(changed) != provider:
        raise not_understood(hermes_home, provider)
    return changed


def not_understood(hermes_home: Path, provider: str) -> StateError:
    """What to say to the host where the file cannot be changed without it."""
    return StateError(
        f"{_path(hermes_home)} is written in a way that only Hermes understands; say: hermes config set memory.provider"
        f" {provider}"
    )


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{path} cannot be changed: {getattr(error, 'strerror', None) or error}") from error


def may_name(hermes_home: Path, provider: str) -> bool:
    """Whether the file has the name of a provider somewhere: by an alias, a merge or a block it may be in use."""
    path = _path(hermes_home)
    with _changing(path):
        return (
            path.exists()
            and re.search(rf"\b{re.escape(provider)}\b", _COMMENT.sub("", path.read_bytes().decode())) is not None
        )


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it meanwhile has the old one or the new one, whole; its mode stays."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.write_bytes(content)
    if path.exists():
        new.chmod(path.stat().st_mode & 0o7777)
    new.replace(path)


def _path(hermes_home: Path) -> Path:
    return hermes_home.expanduser() / "config.yaml"


def _changed(lines: list[str], provider: str) -> list[str]:
    """The file's lines with another provider; the same where they are written in a way that is not understood."""
    start = next((place for place, line in enumerate(lines) if _key(line) == "memory"), None)
    if start is None:
        end = "" if not lines or lines[-1].endswith("\n") else "\n"
        return [*lines, f"{end}memory:\n  provider: {provider}\n"]
    rest = _COMMENT.sub("", lines[start].partition(":")[2]).strip()
    if rest.startswith("{"):
        if rest.count("{") != rest.count("}"):
            return lines
        return [*lines[:start], _within_braces(lines[start], provider), *lines[start + 1 :]]
    if rest not in _NOTHING:
        return lines
    inside = _block(lines, start)
    depth = min((len(lines[place]) - len(lines[place].lstrip()) for place in inside), default=2)
    for place in inside:
        line = lines[place].rstrip("\r\n")
        if len(line) - len(line.lstrip()) == depth and (found := _LINE.fullmatch(line)):
            ending = lines[place][len(line) :]
            value = found["value"].strip()
            quote = value[0] if value[:1] in {'"', "'"} and value[-1] == value[0] else ""
            named = f"{found['before']} {quote}{provider}{quote}{found['after']}{ending}"
            return [*lines[:place], named, *lines[place + 1 :]]
    head = lines[start].rstrip("\r\n") if not rest else lines[start].replace(rest, "", 1).rstrip()
    head += "\n"
    return [*lines[:start], head, f"{' ' * depth}provider: {provider}\n", *lines[start + 1 :]]


def _within_braces(line: str, provider: str) -> str:
    head, brace, rest = line.partition("{")
    if _PROVIDER_INLINE.search(brace + rest):
        changed = _PROVIDER_INLINE.sub(
            lambda found: found[0].replace(found[0].strip("{,} \t"), f"provider: {provider}"), brace + rest, count=1
        )
        return head + changed
    comma = "" if rest.lstrip().startswith("}") else ", "
    return f"{head}{{provider: {provider}{comma}{rest.lstrip()}"


def _key(line: str) -> str:
    return "" if line.startswith((" ", "\t", "#")) else line.partition(":")[0].strip().strip("\"'")


def _block(lines: list[str], start: int) -> list[int]:
    """Where the lines of a block are that hold something."""
    found = []
    for place in range(start + 1, len(lines)):
        line = lines[place]
        if not _COMMENT.sub("", line).strip():
            continue
        if not line.startswith((" ", "\t")):
            break
        found.append(place)
    return found


def _provider(text: str) -> str:
    lines = [line for line in _COMMENT.sub("", text).splitlines() if line.strip()]
    block: list[str] = []
    inside = False
    for line in lines:
        if not line.startswith((" ", "\t")):
            inside = _key(line) == "memory"
            block = [line.partition(":")[2]] if inside else block
        elif inside:
            block.append(line)
    return _provider_of(block)


def _provider_of(block: list[str]) -> str:
    """The value of `provider` in the lines of a YAML block, the first of which stands behind the block's key."""
    if not block:
        return ""
    depth = min((len(line) - len(line.lstrip()) for line in block[1:]), default=0)
    for line in block[1:]:
        if len(line) - len(line.lstrip()) == depth and (found := _PROVIDER.match(line.strip())):
            return found["value"]
    inline = "".join(block).strip()
    found = _PROVIDER_INLINE.search(inline) if inline.startswith("{") else None
    return found["value"] if found else ""
