"""Import modules that callers also use on the caller's thread, never half-seen by another.

An `import` statement waits for another thread's import of the same module; a look into `sys.modules` does not. For
example, `openai` reads `sys.modules["httpx"]`, and fails if a background thread is importing it at that moment. So
the lane imports only the Honcho SDK, and modules that callers do not use (falcon).
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

__all__ = ["import_shared"]

# All modules of other packages that the SDK and the transport import, also late: httpcore imports h11, anyio and, if
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
    """Import the shared modules; a missing one is reported when it is needed."""
    for name in _SHARED:
        with suppress(ImportError):
            import_module(name)
