"""Write files that only their owner can read, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["write_atomically"]


@contextmanager
def write_atomically(path: Path, *, mode: int = 0o600, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    Args:
        path: the file; a reader has its old or its new content.
        mode: the permissions of the new file.
        overwrite: replace an existing file; otherwise raise `FileExistsError` at the end.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            if mode != 0o600:  # noqa: PLR2004 - what it was opened with
                draft.chmod(mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        with suppress(OSError):
            draft.unlink()
