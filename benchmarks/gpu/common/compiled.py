"""Variants compiled side by side before a part needs them.

One at a time they are most of a short visit.
"""

from __future__ import annotations

import concurrent.futures
import os
import time
from collections.abc import Iterable

from benchmarks.gpu.common.machines import Backend
from pod_integrate.builds import nvcc
from pod_integrate.devices.cuda.variants import Variant


def workers() -> int:
    """As many compilers as this process has CPUs."""
    return len(os.sched_getaffinity(0))


def compile_together(machine: Backend, wanted: Iterable[Variant], jobs: int) -> float:
    """Build each variant once for the machine, `jobs` at a time; seconds that it took.

    An error of the compiler ends it: nothing is measured of a kernel that does not build.
    """
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda variant: nvcc.build(variant, machine.arch), dict.fromkeys(wanted)))
    return time.monotonic() - began
