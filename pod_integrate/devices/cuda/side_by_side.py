"""Hybrid batches whose ops run in a launch each, side by side, where a config leaves that open.

A fused launch gives every CTA the threads, registers and shared memory of both ops. Where prefill
leaves part of a wave it can do without: prefill CTAs are placed first, one or two on some SMs, and
decode CTAs find the rest of the GPU empty. Of a whole wave there is no rest:
decode waits for prefill, and the launches might as well follow each other. In the paper's sweep on
an H200, while a whole wave ran side by side too, 128 prefill CTAs beside decodes were at 1.22 of
the speed of our serial in the median, 256 of 264 places at 1.05, 512 in a fused launch at 1.31.
Recorded times (benchmarks/results/gpu_rules_beside.json): buckets with up to 180 prefill CTAs take
less this way, 0.94 of the time in the median and 0.76 at least, one with 248 takes 1.03; beyond a
wave it is 0.89 to 1.16. A record of an H100 with an older kernel
(benchmarks/results/gpu_numbers.json) has it slower throughout, by 6 to 29 %, so it is done only on
what it was measured to pay on. Both are of decode on mma.sync.
"""

from __future__ import annotations

from pod_integrate.devices.cuda.engines import runs_both
from pod_integrate.devices.cuda.planning import Capacity
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey

MEASURED_TO_PAY = frozenset({"nvidia-h200"})
# Of the CTAs that the GPU holds at once.
_MOST = 0.9


def may_run_beside(config: PodConfig, device: DeviceKey) -> bool:
    """Whether `config` leaves it to the batch of this device: `fused` with the ratio 0:0.

    Never where CTAs run both ops anyway.
    """
    is_open = config.strategy == "fused" and (config.prefill_ctas, config.decode_ctas) == (0, 0)
    return is_open and device.name in MEASURED_TO_PAY and not runs_both(config)


def runs_beside(capacity: Capacity, config: PodConfig, sms: int) -> bool:
    """Whether a plan of these grids does: both ops, prefill in up to _MOST of a wave's CTAs."""
    most = _MOST * sms * config.ctas_per_sm
    return capacity.decode_ctas > 0 and 0 < capacity.prefill_ctas <= most
