"""Timers: seconds of one call, on a device that is waited for; for benches, never while serving."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds of one call.
Timer = Callable[[Callable[[], object]], float]


def wall_seconds(call: Callable[[], object]) -> float:
    """Seconds that a call takes on the host."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
