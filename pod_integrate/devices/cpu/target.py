"""What a CPU runs by default, what it cannot do, and what is worth trying.

The constants keep tiles and decode items inside a core's L2; the tuner improves on them per bucket.
"""

from __future__ import annotations

import dataclasses

from pod_integrate.devices.base import Choices, OneOf, Range, Target
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry

# L2 per core that an item's scratch may fill. A key names no cache size, so these are floors:
# server parts with AVX-512 have 1 MiB or more, older ones and clients 512 KiB or more.
L2_BYTES = {"avx512": 1 << 20, "avx2": 512 << 10, "portable": 512 << 10}
_SCORE_COLUMNS = 32
_CTAS_PER_SM = (1, 2)
# K and V of one decode item: it waits in L2, beside the prefill tile, until the core turns to it.
_TICKET_BYTES = 256 << 10
_MAX_DECODE_ROWS = 64
_ROWS = 16  # a tile has a multiple of them
_PARAMETERS: dict[str, Range | OneOf] = {
    "prefill.q_rows_log2": Range(4, 8),
    "prefill.kv_rows_log2": Range(4, 8),
    "decode.kv_rows_log2": Range(4, 9),
    "ctas_per_sm": Range(1, 2),
    "ratio": Range(-4, 4),
    "max_prefill_waves": Range(0, 4),
    "decode_split_tokens_log2": Range(5, 14),
    "virtual_decode_log2": Range(0, 3),
    # Not streams: it waits for every core, so one that another process holds stalls the whole
    # call, and it gains nothing over fused on free cores.
    "strategy": OneOf(("fused", "serial")),
    "prefill.stages": Range(1, 2),
    "decode.stages": Range(1, 2),
}


class CpuTarget(Target):
    """A CPU of some instruction set; one thread to a core."""

    unit = "core"

    def __init__(self, key: DeviceKey) -> None:
        self.key = key

    def default_config(self, geometry: Geometry) -> PodConfig:
        """As Target; the same for any number of threads."""
        wide = geometry.head_dim > 128
        # K and V are packed once for all rows of an item: as many as half of L2 holds.
        q_rows = 256 if L2_BYTES[self.key.capability] >= 1 << 20 else 128
        pair_bytes = 2 * geometry.head_dim * ELEMENT_BYTES[geometry.kv_dtype]
        return PodConfig(
            prefill=TileConfig(
                q_rows=q_rows // 2 if wide else q_rows, kv_rows=32 if wide else 64, stages=2
            ),
            decode=TileConfig(q_rows=16, kv_rows=32, stages=2),
            ctas_per_sm=2,
            max_prefill_waves=2,
            decode_split_tokens=_TICKET_BYTES // pair_bytes // 16 * 16,
        )

    def require_feasible(self, config: PodConfig, geometry: Geometry) -> None:
        """One warp per tile, one or two CTAs per core, at most 64 packed rows per decode item.

        And the scratch of the prefill tile plus the decode tile within L2_BYTES.
        """
        for name, tile in (("prefill", config.prefill), ("decode", config.decode)):
            if tile.warps != 1:
                raise ConfigInfeasibleError(
                    f"{name}.warps is {tile.warps}; a CPU item runs on one core. Set {name}.warps "
                    "to 1"
                )
            if tile.q_rows % _ROWS:
                raise ConfigInfeasibleError(
                    f"{name}.q_rows is {tile.q_rows}; a CPU item packs a multiple of {_ROWS} query "
                    f"rows. Set {name}.q_rows to {_ROWS}"
                )
        if config.ctas_per_sm not in _CTAS_PER_SM:
            raise ConfigInfeasibleError(
                f"ctas_per_sm is {config.ctas_per_sm}; a core runs one prefill item and at most "
                "one decode item beside it. Set ctas_per_sm to 1 or 2"
            )
        if config.decode.q_rows > _MAX_DECODE_ROWS:
            raise ConfigInfeasibleError(
                f"decode.q_rows is {config.decode.q_rows}; a decode item keeps the state of at "
                f"most {_MAX_DECODE_ROWS} packed rows. Lower it: a larger group becomes several "
                "items"
            )
        self._require_scratch(config, geometry)

    def choices(self, geometry: Geometry) -> Choices:
        """The tiles of both ops, freely combined."""
        serial = dataclasses.replace(
            self.default_config(geometry), strategy="serial", ctas_per_sm=1
        )
        return Choices(_PARAMETERS, (("serial", serial),))

    def can_measure(self, traced: DeviceKey) -> bool:
        """Any thread count up to this one's."""
        mine = self.key
        same = (mine.name, mine.capability) == (traced.name, traced.capability)
        return same and 1 <= traced.units <= mine.units

    def _require_scratch(self, config: PodConfig, geometry: Geometry) -> None:
        prefill, decode = scratch_bytes(config, geometry)
        limit = L2_BYTES[self.key.capability]
        if prefill + decode <= limit:
            return
        name, tile = ("prefill", config.prefill) if prefill >= decode else ("decode", config.decode)
        raise ConfigInfeasibleError(
            f"scratch is {prefill >> 10} KiB (prefill tile) + {decode >> 10} KiB (decode tile) at "
            f"head dim {geometry.head_dim}; {self.key.capability} leaves {limit >> 10} KiB of L2 "
            f"per core. Lower {name}.q_rows ({tile.q_rows}) or {name}.kv_rows ({tile.kv_rows})"
        )


def scratch_bytes(config: PodConfig, geometry: Geometry) -> tuple[int, int]:
    """Bytes of scratch per worker of the (prefill, decode) tile; fp32 whatever the inputs are.

    A prefill item keeps Q and O, one K and one V tile, and scores of 32 rows; a decode item Q and
    O and one tile of scores.
    """
    dim, p, d = geometry.head_dim, config.prefill, config.decode
    prefill = 2 * p.q_rows * dim + 2 * p.kv_rows * dim + p.kv_rows * _SCORE_COLUMNS
    decode = 2 * d.q_rows * dim + d.q_rows * d.kv_rows
    return 4 * prefill, 4 * decode
