"""Which decode tiles there are: 16 packed query rows, and 8 where decode runs on wgmma."""

from __future__ import annotations

from typing import Any

import numpy as np

from pod_integrate.devices.cuda.architectures import Architecture
from pod_integrate.devices.cuda.engines import decode_engine
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

# Packed rows of a request that is a decode, at most, whatever the tile; and of a decode tile, which
# on wgmma may also have FEW_ROWS.
DECODE_ROWS, FEW_ROWS = 16, 8
Counts = np.ndarray[Any, np.dtype[Any]]


def is_decode(q: Counts, group: int) -> Counts:
    """Which requests of so many tokens the planner decodes, as is_decode of plan.h."""
    found: Counts = np.logical_or(q == 1, q * group <= DECODE_ROWS)
    return found


def require_decode_rows(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> None:
    """Raise ConfigInfeasibleError unless decode's matrix unit has tiles of so many rows."""
    rows = config.decode.q_rows
    if rows == DECODE_ROWS:
        return
    text = f"decode.q_rows is {rows}; a decode tile is one {DECODE_ROWS}-row tensor-core block"
    remedy = f"Set decode.q_rows to {DECODE_ROWS}"
    if rows != FEW_ROWS:
        raise ConfigInfeasibleError(f"{text}. {remedy}: a larger group becomes several items")
    if decode_engine(config, arch, head_dim, kv_bytes) != "wgmma":
        raise ConfigInfeasibleError(
            f"{text}, {FEW_ROWS} rows are for decode on wgmma, and with these tiles {arch.name} "
            f"decodes on mma.sync. {remedy}, or on sm_90a take tiles that decode on wgmma "
            "(docs/kernel.md)"
        )


def require_group(config: PodConfig, geometry: Geometry) -> None:
    """Raise ConfigInfeasibleError where a token's heads need two items of few rows."""
    group = geometry.group
    if config.decode.q_rows == FEW_ROWS < group:
        raise ConfigInfeasibleError(
            f"decode.q_rows is {FEW_ROWS} and {group} query heads share a KV head: every {FEW_ROWS}"
            f" of them would read all K and V again. Set decode.q_rows to {DECODE_ROWS}"
        )
