"""How long a Hypothesis state machine is driven."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["bounds"]


def bounds(*, runs: int, steps: int) -> settings:
    """So many runs of so many steps, the same each time; with the long profile fifty times as many, and others."""
    long = settings.get_current_profile_name() == "long"
    return settings(
        max_examples=50 * runs if long else runs,
        stateful_step_count=steps,
        derandomize=not long,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
