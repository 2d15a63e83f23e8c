"""What a measuring process or actor does from its start to its end."""

from __future__ import annotations

from collections.abc import Callable

from tuner.host.client import TaskClient
from tuner.measure.polite import be_polite


def measure_until(source: TaskClient, name: str, nice: int, *, stop: Callable[[], bool]) -> None:
    """Measure what `source` has, as worker `name` with that much niceness, until `stop()`."""
    import torch

    from tuner.measure.bench import OpBench
    from tuner.measure.worker import HANG_LEASES, describe, measured_device, run_loop
    from tuner.settings import load

    be_polite(nice)
    # The op brings its own threads; the reference's small products only get slower with two.
    torch.set_num_threads(1)
    device = measured_device()
    run_loop(
        source, describe(name, device), OpBench(device),
        stop=stop, limit_seconds=HANG_LEASES * load().lease_seconds,
    )  # fmt: skip
