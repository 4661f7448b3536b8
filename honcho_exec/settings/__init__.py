"""Settings: declared once, read once, frozen."""

from honcho_exec.settings.loading import LoadedSettings, load, state_home, stated_home
from honcho_exec.settings.schema import Observation, Settings, extra, variables
from honcho_exec.settings.types import EMBEDDED, Level

__all__ = [
    "EMBEDDED",
    "Level",
    "LoadedSettings",
    "Observation",
    "Settings",
    "extra",
    "load",
    "state_home",
    "stated_home",
    "variables",
]
