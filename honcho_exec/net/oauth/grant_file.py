"""Read and write OAuth grants in Honcho's own file, where the bundled provider keeps them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from honcho_exec.settings import LoadedSettings
from honcho_exec.storage.private_file import write_atomically

__all__ = ["GrantFile", "Tokens"]

_ACCESS_PREFIX = "hch-at-"
"""The beginning of an access token, which distinguishes it from a key in its place."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a grant; their printed form shows none.

    Attributes:
        access: the bearer key.
        refresh: can be exchanged for the next pair, once; None if the key is not a grant's any more.
        expires_at: when the access token ends, seconds since the epoch.
    """

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)
    expires_at: float = 0.0
    client_id: str = field(default="", repr=False)
    endpoint: str = ""
    scope: str = ""
    kind: str = "Bearer"


@dataclass(frozen=True, slots=True)
class GrantFile:
    """The location of a grant: a file, and the key of a block under `hosts`."""

    path: Path
    host: str

    @classmethod
    def of(cls, loaded: LoadedSettings) -> GrantFile | None:
        """Return the grant that the API key of these settings belongs to, if any."""
        return cls(loaded.file, loaded.grant) if loaded.file and loaded.grant else None

    @property
    def lock(self) -> Path:
        """Return the lock that is held while the grant is renewed, also by the bundled provider."""
        return Path(f"{self.path}.lock")

    def version(self) -> tuple[int, ...] | None:
        """Return a value that changes when the file is written; None if there is no file."""
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return (seen.st_mtime_ns, seen.st_size, seen.st_ino)

    def read(self) -> Tokens | None:
        """Return the grant in the file; None if it cannot be read or has no key."""
        try:
            block = json.loads(self.path.read_text(encoding="utf-8"))["hosts"][self.host]
            return _tokens(block)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, tokens: Tokens) -> None:
        """Replace the tokens in the file, and nothing else; the caller holds the lock.

        Raises:
            OSError, ValueError, TypeError, AttributeError: the file cannot be written, and is unchanged.
        """
        path = self.path.resolve()
        root = json.loads(path.read_text(encoding="utf-8"))
        block = root.setdefault("hosts", {}).setdefault(self.host, {})
        block["apiKey"] = tokens.access
        block["oauth"] = {**(block.get("oauth") or {}), **_block(tokens)}
        text = json.dumps(root, indent=2, ensure_ascii=False) + "\n"
        with write_atomically(path) as file:
            file.write(text.encode())


def _tokens(block: dict[str, object]) -> Tokens | None:
    access, grant = block.get("apiKey"), block.get("oauth")
    if not isinstance(access, str) or not access:
        return None
    if not isinstance(grant, dict) or not access.startswith(_ACCESS_PREFIX):
        return Tokens(access)
    refresh, endpoint, client_id = (grant.get(key) for key in ("refreshToken", "tokenEndpoint", "clientId"))
    if not (refresh and endpoint and client_id):
        return Tokens(access)
    try:
        expires_at = float(grant.get("expiresAt") or 0)
    except (TypeError, ValueError):
        expires_at = 0.0
    scope, kind = str(grant.get("scope") or "write"), str(grant.get("tokenType") or "Bearer")
    return Tokens(access, str(refresh), expires_at, str(client_id), str(endpoint), scope, kind)


def _block(tokens: Tokens) -> dict[str, object]:
    return {
        "refreshToken": tokens.refresh,
        "expiresAt": int(tokens.expires_at),
        "clientId": tokens.client_id,
        "tokenEndpoint": tokens.endpoint,
        "scope": tokens.scope,
        "tokenType": tokens.kind,
    }
