"""Settings: declared once, read once, frozen."""

from honcho_exec.settings.declared import Observation, Settings, extra, variables
from honcho_exec.settings.reading import LoadedSettings, load, state_home, stated_home
from honcho_exec.settings.values import EMBEDDED, Level

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
