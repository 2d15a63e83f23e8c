"""What the device attains at best, measured in the same run: copies and matrix products."""

from __future__ import annotations

import torch

from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.common.timing import ColdTimer

_COPY_BYTES = 4 << 30
_GEMM = 8192
_TINY = 64


def ceilings(machine: Backend, timer: ColdTimer) -> dict[str, float]:
    """Per second: copy_bytes, read_bytes and bf16_flops.

    Copies count what is read plus what is written, device to device; reads are one sum; the
    product is 8192^3 of random values.
    """
    real = not machine.tiny
    count = (_COPY_BYTES if real else _TINY) // 4
    copy, read = _memory(machine, timer, count)
    n = _GEMM if real else _TINY
    a, b = (torch.randn(n, n, device=machine.device, dtype=torch.bfloat16) for _ in range(2))
    product = timer.time(lambda: a @ b).median_us
    return {
        "copy_bytes": 8 * count / copy * 1e6,
        "read_bytes": 4 * count / read * 1e6,
        "bf16_flops": 2 * n**3 / product * 1e6,
    }


def _memory(machine: Backend, timer: ColdTimer, count: int) -> tuple[float, float]:
    source = torch.randn(count, device=machine.device)
    target = torch.empty_like(source)
    copy = timer.time(lambda: target.copy_(source)).median_us
    return copy, timer.time(source.sum).median_us
