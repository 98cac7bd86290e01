"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time says nothing here: machines of continuous integration stall, and the first example of a
# fresh checkout pays for building Unicode tables.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
