"""GPUs that the cost model knows, as numbers with their sources.

Sources: [A] NVIDIA A100 data sheet and GA100 white paper; [H] H100 data sheet and GH100 white
paper; [H2] H200 data sheet; [L] L40S data sheet; [R] AD102 white paper (RTX 4090);
[F] FlashAttention-2 and -3 papers; [T] table 3 of PMC10448217 (peak L2 bandwidth, idle latencies).
"Assumed" marks what has no source. Shared memory and registers are in devices/cuda/limits.py.
"""

from __future__ import annotations

import dataclasses

from pod_integrate.errors import ConfigError
from pod_integrate.terms.keys import DeviceKey


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU as the model sees it.

    tensor_flops    dense 16-bit tensor FLOP/s with fp32 accumulation, data sheet
    best_flops      what the best published attention kernel attains: the real floor
    kernel_flops    what kernels of our kind (mma.sync, FlashAttention-2 style) attain at full
                    residency: the simulation
    wgmma_flops     what prefill items attain whose variant multiplies with wgmma; 0: there is none
    dram_bytes      bytes/s, data sheet; `dram_share` of it is attained by streaming kernels
    l2_bytes        bytes/s that all SMs together read from L2: 60 % of its peak, assumed
    l2_ns, dram_ns  load latency of a KV tile that hits L2, or misses it; 1.75 and 2.5 times the
                    idle latency, because the device is loaded, assumed
    """

    key: DeviceKey
    label: str
    tensor_flops: float
    best_flops: float
    kernel_flops: float
    dram_bytes: float
    l2_bytes: float
    l2_capacity: int
    l2_ns: float
    dram_ns: float
    wgmma_flops: float = 0.0
    dram_share: float = 0.9  # assumed: what streaming kernels attain of the data sheet

    @property
    def sms(self) -> int:
        """Streaming multiprocessors."""
        return self.key.units


DEVICES = {
    "a100": Device(
        key=DeviceKey("nvidia-a100-sxm4-80gb", "sm80", 108),  # [A]
        label="A100-SXM",
        tensor_flops=312e12,  # [A]
        best_flops=220e12,  # [F]: FlashAttention-2 forward, head dim 128, long sequences
        kernel_flops=220e12,
        dram_bytes=2.039e12,  # [A]
        l2_bytes=0.6 * 7.2e12,  # [T], equals 5120 B/clk of [A] at 1.41 GHz
        l2_capacity=40 << 20,  # [A]
        l2_ns=250.0,  # 1.75 x 200 cycles [T] at 1.41 GHz
        dram_ns=700.0,  # 2.5 x 400 cycles [T] at 1.41 GHz
    ),
    "h100": Device(
        key=DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132),  # [H]
        label="H100-SXM",
        tensor_flops=989.4e12,  # [H]
        best_flops=600e12,  # [F]: FlashAttention-3 causal, head dim 128, 8K-16K tokens
        kernel_flops=370e12,  # [F]: FlashAttention-2 on H100; mma.sync reaches no more
        wgmma_flops=530e12,  # ours: prefill alone on an H100, 8K-16K tokens, 514 to 547
        dram_bytes=3.35e12,  # [H]
        l2_bytes=0.6 * 9.0e12,  # [T]
        l2_capacity=50 << 20,  # [H]
        l2_ns=200.0,  # 1.75 x 200 cycles [T] at 1.76 GHz
        dram_ns=570.0,  # 2.5 x 400 cycles [T] at 1.76 GHz
    ),
    "h200": Device(
        key=DeviceKey("nvidia-h200", "sm90", 132),  # [H2]
        label="H200",
        tensor_flops=989.4e12,  # [H2]
        best_flops=600e12,  # as H100
        kernel_flops=370e12,  # as H100
        wgmma_flops=530e12,  # as H100
        dram_bytes=4.8e12,  # [H2]
        l2_bytes=0.6 * 9.0e12,  # as H100
        l2_capacity=50 << 20,  # [H2]
        l2_ns=200.0,  # as H100
        dram_ns=570.0,  # as H100
    ),
    "l40s": Device(
        key=DeviceKey("nvidia-l40s", "sm89", 142),  # [L]
        label="L40S",
        tensor_flops=362e12,  # [L]
        best_flops=255e12,  # assumed: A100's share of its data sheet
        kernel_flops=255e12,
        dram_bytes=0.864e12,  # [L]
        l2_bytes=3.0e12,  # assumed
        l2_capacity=96 << 20,  # [L]
        l2_ns=200.0,  # 1.75 x 280 cycles (arXiv:2606.22588, L40) at 2.5 GHz
        dram_ns=600.0,  # assumed
    ),
    "rtx4090": Device(
        key=DeviceKey("nvidia-geforce-rtx-4090", "sm89", 128),  # [R]
        label="RTX 4090",
        tensor_flops=165.2e12,  # [R]: with fp32 accumulation
        best_flops=140e12,  # assumed: 85 %, the fp32-accumulation rate is half of the pipes'
        kernel_flops=140e12,
        dram_bytes=1.008e12,  # [R]
        l2_bytes=2.7e12,  # assumed
        l2_capacity=72 << 20,  # [R]
        l2_ns=200.0,  # as L40S
        dram_ns=600.0,  # as L40S
    ),
}


def find_device(name: str) -> Device:
    """The device called `name`; raises ConfigError with the known names."""
    device = DEVICES.get(name.lower())
    if device is None:
        raise ConfigError(f"device {name!r} is unknown to the model; known are {sorted(DEVICES)}")
    return device
