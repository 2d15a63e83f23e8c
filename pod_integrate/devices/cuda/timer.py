"""Seconds of one call on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Long enough for the host to queue some calls behind it.
_HEAD_START_CYCLES = 1_000_000


def gpu_seconds(call: Callable[[], object]) -> float:
    """Seconds between the first and the last kernel that a call queues on the current stream.

    The stream waits until the host has queued some of them, so that the host's own time does not
    count. Waits for the stream.
    """
    # torch leaves both untyped.
    event: Any = torch.cuda.Event
    sleep: Any = torch.cuda._sleep
    start, end = event(enable_timing=True), event(enable_timing=True)
    sleep(_HEAD_START_CYCLES)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
