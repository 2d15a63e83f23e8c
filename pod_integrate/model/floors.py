"""FLOPs and bytes of a batch, and the times below which no kernel can go.

F = 4 d Hq x visible (query, key) pairs of the prefill side; B = 2 e d Hkv x keys of the decode
side (e bytes per value). T >= max(F / tensor rate, B / bandwidth); one launch that pads decode
rows to tiles of 16 also computes 4 d 16 Hkv x keys.
"""

from __future__ import annotations

from typing import NamedTuple

from pod_integrate.errors import DtypeError
from pod_integrate.model.batches import Lengths, visible_pairs
from pod_integrate.model.devices import Device
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

DECODE_TILE_ROWS = 16
# Of q and O.
Q_BYTES = 2


class Cost(NamedTuple):
    """What a batch must compute and read: FLOPs of prefill and padded decode, bytes of decode."""

    prefill_flops: int
    decode_flops: int
    decode_bytes: int


class Floor(NamedTuple):
    """Lower bounds in us. `serial` runs one op after the other, `fused` overlaps them fully."""

    prefill_us: float
    decode_us: float
    decode_mma_us: float

    @property
    def serial_us(self) -> float:
        """Prefill alone, then decode alone."""
        return self.prefill_us + self.decode_us

    @property
    def fused_us(self) -> float:
        """Both at once on one device: tensor pipes do both, memory serves decode."""
        return max(self.prefill_us + self.decode_mma_us, self.decode_us)

    @property
    def max_speedup(self) -> float:
        """serial / max(prefill, decode); 1 for an empty batch. Ignores the padded decode MMA."""
        longest = max(self.prefill_us, self.decode_us)
        return self.serial_us / longest if longest else 1.0


def require_gpu_dtype(geometry: Geometry) -> None:
    """Raise DtypeError for dtypes that the GPU kernel does not take."""
    if geometry.dtype == "fp32" or geometry.kv_dtype not in (geometry.dtype, "e4m3"):
        raise DtypeError(
            f"the model covers the GPU kernel, which takes bf16 or fp16 for q and KV alike, or "
            f"e4m3 for KV, got {geometry.dtype} and {geometry.kv_dtype}"
        )


def cost_of(lengths: Lengths, geometry: Geometry) -> Cost:
    """FLOPs and bytes of a batch; one-token requests are decode, all longer ones prefill."""
    require_gpu_dtype(geometry)
    window, dim = geometry.window_left, geometry.head_dim
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    pairs, keys = (
        int(visible_pairs(*side, window).sum()) for side in (lengths.prefill, lengths.decode)
    )
    return Cost(
        prefill_flops=4 * dim * geometry.num_q_heads * pairs,
        decode_flops=4 * dim * DECODE_TILE_ROWS * geometry.num_kv_heads * keys,
        decode_bytes=2 * kv_bytes * dim * geometry.num_kv_heads * keys,
    )


def ideal_floor(cost: Cost, device: Device) -> Floor:
    """Floor at data-sheet rates."""
    return floor_at(cost, device.tensor_flops, device.dram_bytes)


def real_floor(cost: Cost, device: Device) -> Floor:
    """Floor at the rates that the best published kernels attain."""
    return floor_at(cost, device.best_flops, device.dram_bytes * device.dram_share)


def floor_at(cost: Cost, flops: float, bandwidth: float) -> Floor:
    """Floor at FLOP/s and bytes/s that somebody else knows."""
    return Floor(
        prefill_us=cost.prefill_flops / flops * 1e6,
        decode_us=cost.decode_bytes / bandwidth * 1e6,
        decode_mma_us=cost.decode_flops / flops * 1e6,
    )


class CaseSpec(NamedTuple):
    """One prefill chunk at the end of `context`, and `decodes` requests at `decode_context`."""

    name: str
    num_q_heads: int
    num_kv_heads: int
    chunk: int
    context: int
    decodes: int
    decode_context: int
    head_dim: int = 128
    page_size: int = 16

    @property
    def geometry(self) -> Geometry:
        """Heads per GPU, bf16."""
        return Geometry.uniform(
            (self.num_q_heads, self.num_kv_heads, self.head_dim), "bf16", page_size=self.page_size
        )

    @property
    def lengths(self) -> Lengths:
        """The chunk first, then the decodes."""
        contexts = [self.context, *[self.decode_context] * self.decodes]
        return Lengths.of([self.chunk, *[1] * self.decodes], contexts)


CASES = (
    CaseSpec("C0", 16, 4, 1024, 12288, 80, 12288),
    CaseSpec("C1", 16, 4, 12288, 12288, 220, 12288),
    CaseSpec("C2", 16, 4, 16384, 16384, 250, 12288),
    CaseSpec("table 8", 16, 4, 512, 16384, 64, 16384),
    CaseSpec("figure 6, 54", 32, 4, 512, 16384, 54, 16384),
    CaseSpec("figure 6, 55", 32, 4, 512, 16384, 55, 16384),
    CaseSpec("figure 14, Yi-6B", 32, 4, 8192, 8192, 128, 8192),
    CaseSpec("figure 14, Llama-3-8B", 32, 8, 8192, 8192, 128, 8192),
    CaseSpec("FlashInfer 2K", 32, 8, 2048, 2048, 128, 2048),
    CaseSpec("FlashInfer 4K/4K", 32, 8, 4096, 4096, 128, 4096),
    CaseSpec("FlashInfer 4K/8K", 32, 8, 4096, 4096, 128, 8192),
    CaseSpec("FlashInfer 6K/7K", 32, 8, 6000, 7000, 128, 8192),
)
