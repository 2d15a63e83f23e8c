"""Seconds of one call on a GPU; what every timer there is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Long enough for the host to queue some calls behind it.
HEAD_START_CYCLES = 1_000_000


def gpu_seconds(call: Callable[[], object]) -> float:
    """Seconds between the first and the last kernel that a call queues on the current stream.

    The stream waits until the host has queued some of them, so that the host's own time does not
    count. Waits for the stream.
    """
    start, end = event_pair()
    head_start()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def head_start(cycles: int = HEAD_START_CYCLES) -> None:
    """Keep the current stream busy, so that the host can queue work behind it."""
    torch.cuda._sleep(cycles)


def event_pair() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Two events that know when the stream came by."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    return start, end
