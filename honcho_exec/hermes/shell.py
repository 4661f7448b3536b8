"""The adapter under the name that installed copies of the plugin import."""

from honcho_exec.hermes.adapter import HonchoExecMemoryProvider

__all__ = ["HonchoExecMemoryProvider"]
