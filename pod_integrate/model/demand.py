"""What each CTA of a plan asks of its SM: tensor time, L2 and DRAM bytes, and its shortest time.

Counted per item, in whole tiles of the config:

tensor   4 x q_rows x kv_rows x D FLOPs per tile, padded rows and masked keys included
L2       K and V of every tile, Q, and what the item writes
DRAM     K and V once per (request, KV head), shared evenly by the items that read them: row blocks
         of one head run close together and find the rest in L2. Q and O once. Partial O of splits
         only when it does not fit half of L2
alone    kv tiles x max(compute, (latency + compute / 2) / stages): a CTA of few warps fills only
         part of the tensor pipes, one of few stages waits for its loads
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pod_integrate.devices.cuda import limits
from pod_integrate.model.devices import Device
from pod_integrate.model.floors import Q_BYTES
from pod_integrate.model.items import Array, DecodedPlan
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

# Share of an SM's attainable tensor rate that one warp per scheduler draws, as nothing else hides
# its softmax. Cycles of a 128 x 64 x 128 tile on an A100: 2048 / 0.95 of MMA, about 1250 of exp2,
# scaling, maxima, sums and rescaling; 2048 / (220 / 312) at the rate attained with more warps.
SOLO_SHARE = 0.85
SCHEDULERS = 4
# Launch of a CTA, its ticket, Q, the first K tile; and the epilogue. Assumed.
CTA_NS = 1500.0
PARTIAL_BYTES = 4


class Demand(NamedTuple):
    """Arrays over the CTAs of one op, in grid order. Times in seconds.

    tensor     time on the SM's tensor pipes if it had them alone, at the attainable rate
    l2, dram   bytes
    alone      shortest time that the CTA can take once it runs
    fixed      time before that in which it only holds its slot
    warps      weight in the competition for tensor pipes
    in_flight  bytes it keeps in flight, the weight in the competition for bandwidth
    """

    tensor: Array
    l2: Array
    dram: Array
    alone: Array
    fixed: Array
    warps: Array
    in_flight: Array


def prefill_demand(
    plan: DecodedPlan, geometry: Geometry, config: PodConfig, device: Device
) -> Demand:
    """Demand of the prefill CTAs of a plan."""
    arch = limits.architecture(device.key.capability)
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    flops = _rate(limits.prefill_engine(config, arch, geometry.head_dim, kv_bytes), device)
    return _demand(plan.prefill, config.prefill, 1, geometry, device, flops, device.l2_ns)


def decode_demand(
    plan: DecodedPlan, geometry: Geometry, config: PodConfig, device: Device
) -> Demand:
    """Demand of the decode CTAs of a plan; one holds `virtual_decode` items."""
    arch = limits.architecture(device.key.capability)
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    flops = _rate(limits.decode_engine(config, arch, geometry.head_dim, kv_bytes), device)
    return _demand(
        *(plan.decode, config.decode, config.virtual_decode, geometry, device),
        *(flops, device.dram_ns),
    )


def _rate(engine: limits.PrefillEngine, device: Device) -> float:
    """FLOP/s at full residency. A product with few columns takes the matrix unit no longer."""
    return device.kernel_flops if engine == "mma" else device.wgmma_flops


def _demand(
    items: Array,
    tile: TileConfig,
    per_cta: int,
    geometry: Geometry,
    device: Device,
    flops: float,
    latency_ns: float,
) -> Demand:
    dim, step_bytes = geometry.head_dim, _tile_bytes(tile, geometry)
    tiles = -(-(items["kv1"] - items["kv0"]).astype(np.int64) // tile.kv_rows)
    sm_flops = flops / device.sms
    step_tensor = 4 * tile.q_rows * tile.kv_rows * dim / sm_flops
    step_compute = step_tensor / (SOLO_SHARE * min(1.0, tile.warps / SCHEDULERS))
    step_loads = (latency_ns * 1e-9 + step_compute / 2) / tile.stages
    kv_bytes = (items["kv1"] - items["kv0"]).astype(np.float64) * step_bytes / tile.kv_rows
    row_bytes, partial_bytes = _row_bytes(items, geometry)
    per_item = Demand(
        tensor=tiles * step_tensor,
        l2=kv_bytes + row_bytes + partial_bytes,
        dram=kv_bytes * _first_readers_share(items) + row_bytes + _spilled(partial_bytes, device),
        alone=tiles * max(step_compute, step_loads) + latency_ns * 1e-9,
        fixed=np.full(len(items), CTA_NS * 1e-9),
        warps=np.full(len(items), float(tile.warps)),
        in_flight=np.full(len(items), float(tile.stages * step_bytes)),
    )
    return _per_cta(per_item, per_cta)


def _tile_bytes(tile: TileConfig, geometry: Geometry) -> int:
    """K and V of one step."""
    return 2 * tile.kv_rows * geometry.head_dim * ELEMENT_BYTES[geometry.kv_dtype]


def _row_bytes(items: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Bytes of Q and O in the dtype of q, and of partial O, m and l, by item."""
    rows, split = items["rows"].astype(np.float64), items["slot"] >= 0
    plain = rows * geometry.head_dim * Q_BYTES
    partial = rows * (geometry.head_dim + 2) * PARTIAL_BYTES
    return np.where(split, plain, 2 * plain), np.where(split, partial, 0.0)


def _spilled(partial_bytes: Array, device: Device) -> Array | float:
    return partial_bytes if partial_bytes.sum() > device.l2_capacity / 2 else 0.0


def _first_readers_share(items: Array) -> Array:
    """Part of an item's K and V that comes from DRAM: distinct keys / keys read, by KV head."""
    if not len(items):
        return np.zeros(0)
    heads = int(items["kv_head"].max()) + 1
    code = items["request"].astype(np.int64) * heads + items["kv_head"]
    _, group = np.unique(code, return_inverse=True)
    low = np.full(group.max() + 1, np.iinfo(np.int64).max)
    high = np.zeros(group.max() + 1, dtype=np.int64)
    np.minimum.at(low, group, items["kv0"])
    np.maximum.at(high, group, items["kv1"])
    read = np.bincount(group, weights=items["kv1"] - items["kv0"])
    share: Array = np.minimum(1.0, (high - low) / np.maximum(read, 1.0))[group]
    return share


def _per_cta(items: Demand, per_cta: int) -> Demand:
    """Items of a CTA run side by side: their demands add up, the longest sets the time."""
    if per_cta == 1 or not len(items.tensor):
        return items
    starts = np.arange(0, len(items.tensor), per_cta)
    longest = {"alone", "fixed"}
    return Demand(
        **{
            name: (np.maximum if name in longest else np.add).reduceat(values, starts)
            for name, values in items._asdict().items()
        }
    )
