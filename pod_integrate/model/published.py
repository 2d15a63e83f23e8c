"""Published kernels written as PodConfigs: what the model's agreement is checked with.

Tiles and split rules are read from the public sources of POD-Attention's artifact (FlashAttention
2.6.1 inside) and FlashInfer. Their prefill does not pack GQA groups as ours does; the number and
the size of its CTAs are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from pod_integrate.model.batches import Lengths
from pod_integrate.model.devices import Device
from pod_integrate.model.simulate import simulate
from pod_integrate.terms.config import PodConfig, Strategy, TileConfig
from pod_integrate.terms.keys import Geometry

_FA_TILE = TileConfig(q_rows=128, kv_rows=64, stages=1, warps=4)
_FA_SPLIT_TILE = TileConfig(q_rows=64, kv_rows=128, stages=1, warps=4)
_POD_DECODE_TILE = TileConfig(q_rows=16, kv_rows=32, stages=1, warps=1)

POD_2 = PodConfig(
    prefill=_FA_TILE,
    decode=_POD_DECODE_TILE,
    ctas_per_sm=2,
    virtual_decode=4,
    max_prefill_waves=2,
)
POD_4 = dataclasses.replace(
    POD_2,
    prefill=TileConfig(q_rows=64, kv_rows=32, stages=1, warps=2),
    ctas_per_sm=4,
    virtual_decode=2,
)
POD_8 = dataclasses.replace(
    POD_2,
    prefill=TileConfig(q_rows=16, kv_rows=32, stages=1, warps=1),
    ctas_per_sm=8,
    virtual_decode=1,
)
# FlashInfer's POD: two CTAs per SM, 1:1, no virtual decode CTAs, prefill unsplit here.
FLASHINFER_POD = PodConfig(
    prefill=_FA_TILE,
    decode=TileConfig(q_rows=16, kv_rows=64, stages=1, warps=4),
    ctas_per_sm=2,
    prefill_ctas=1,
    decode_ctas=1,
    max_prefill_waves=0,
)


def fused_us(
    lengths: Lengths, geometry: Geometry, device: Device, configs: tuple[PodConfig, ...]
) -> float:
    """Time of the fastest of `configs`: the paper's POD is the best of its settings."""
    return min(time_us(lengths, geometry, config, device) for config in configs)


def fa_serial_us(lengths: Lengths, geometry: Geometry, device: Device) -> float:
    """FlashAttention-2's two kernels, timed apart and added, as the artifact does."""
    config = fa_config(lengths, geometry, device, "serial")
    parts = [part for part in (lengths.prefill, lengths.decode) if part.q_lens]
    return sum(time_us(part, geometry, config, device) for part in parts)


def fa_streams_us(lengths: Lengths, geometry: Geometry, device: Device) -> float:
    """The same two kernels on two streams."""
    return time_us(lengths, geometry, fa_config(lengths, geometry, device, "streams"), device)


@functools.lru_cache(maxsize=4096)
def time_us(lengths: Lengths, geometry: Geometry, config: PodConfig, device: Device) -> float:
    """Simulated time of one call, in the config's own splits: those kernels choose no others."""
    return simulate(lengths, geometry, config, device, fill_ctas=0).us


def fa_config(
    lengths: Lengths, geometry: Geometry, device: Device, strategy: Strategy
) -> PodConfig:
    """Tiles and splits that FlashAttention 2.6.1 chooses for each side of a batch."""
    prefill, decode = lengths.prefill, lengths.decode
    slots = 2 * device.sms
    row_blocks = geometry.num_q_heads * sum(-(-q // 64) for q in prefill.q_lens)
    prefill_splits = _fa_splits(row_blocks, slots, max(prefill.kv_lens, default=0))
    context = max(decode.kv_lens, default=0)
    decode_splits = _fa_splits(geometry.num_kv_heads * len(decode.q_lens), slots, context)
    return PodConfig(
        prefill=_FA_SPLIT_TILE if prefill_splits > 1 else _FA_TILE,
        # The artifact patches its copy: up to 64 query rows take this tile, split or not.
        decode=_FA_SPLIT_TILE,
        ctas_per_sm=2,
        max_prefill_waves=_waves_for(prefill_splits, row_blocks, slots),
        decode_split_tokens=(
            16 * math.ceil(context / decode_splits / 16) if decode_splits > 1 else 0
        ),
        strategy=strategy,
    )


def _waves_for(splits: int, blocks: int, slots: int) -> int:
    """The wave limit with which our planner cuts `blocks` into about `splits` each."""
    if splits <= 1:
        return 0
    return min(range(1, 65), key=lambda waves: abs(waves * slots // blocks - splits))


def _fa_splits(blocks: int, slots: int, context: int) -> int:
    """FlashAttention's rule: the fewest splits whose last wave is 85 % as full as the best's."""
    if blocks == 0 or blocks >= 0.8 * slots:
        return 1
    kv_blocks = -(-context // 128)
    efficiency: dict[int, float] = {}
    for splits in range(1, min(128, slots, kv_blocks) + 1):
        if splits == 1 or -(-kv_blocks // splits) != -(-kv_blocks // (splits - 1)):
            waves = blocks * splits / slots
            efficiency[splits] = waves / math.ceil(waves)
    best = max(efficiency.values())
    return next(splits for splits, value in efficiency.items() if value >= 0.85 * best)
