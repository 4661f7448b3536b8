"""Import what callers may import as well on the caller's thread, so that no thread sees half of it.

An `import` statement waits for another thread's import of the same module; a look into `sys.modules` does not. Programs
do that: `openai` reads `sys.modules["httpx"]`, and fails if a background thread of ours is importing it just then.
The lane therefore imports only the Honcho SDK, and what no caller shares with it (falcon).
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

__all__ = ["import_shared"]

# All that the SDK and the transport import of other packages, also late: httpcore brings h11, anyio and, where they are
# installed, h2 and trio; pydantic loads some of its modules when a model first needs them.
_SHARED = (
    "asyncio",
    "httpx",
    "httpcore",
    "certifi",
    "idna",
    "pydantic.root_model",
    "pydantic.type_adapter",
    "pydantic.validate_call_decorator",
    "pydantic._internal._serializers",
)


def import_shared() -> None:
    """Import these modules; what is not installed is reported where it is needed."""
    for name in _SHARED:
        with suppress(ImportError):
            import_module(name)
