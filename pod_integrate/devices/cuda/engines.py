"""Which matrix unit of a GPU runs the items of a config."""

from __future__ import annotations

from collections.abc import Callable

from pod_integrate.devices.cuda.architectures import Architecture, PrefillEngine
from pod_integrate.terms.config import PodConfig

GROUP_THREADS = 128  # of a warpgroup
_GROUP_WARPS = GROUP_THREADS // 32
# Where bytes are widened for wgmma: by lanes that each have a chunk of a row, which 96 bytes do not
# give them, to panels whose columns are those of at most 8 chunks.
_WIDENED_DIMS = (64, 128)


def runs_both(config: PodConfig) -> bool:
    """Whether an SM's only CTA runs both ops, as config.h says.

    Where a GPU has an engine for such CTAs they stay and draw items of both ops as they need them.
    The CTA ratio has no meaning, but where they run one op at a time (pair_decodes).
    """
    warps = (config.prefill.warps, config.decode.warps)
    alone = (config.ctas_per_sm, config.virtual_decode) == (1, 1)
    return warps == (2 * _GROUP_WARPS, _GROUP_WARPS) and alone


def pair_decodes(head_dim: int, kv_bytes: int) -> bool:
    """Whether a CTA with a pair has a warpgroup that only decodes, as config.h says.

    Else it runs one op at a time, the pair's warpgroups a decode item each, and the CTA ratio says
    how many CTAs begin with which.
    """
    return head_dim <= 128 and kv_bytes == 2


def decode_engine(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> PrefillEngine:
    """What multiplies in decode items: wgmma with operands swapped, where config.h says so."""
    d = config.decode
    group = d.warps == _GROUP_WARPS and config.virtual_decode == 1
    suits = group and d.kv_rows % 64 == 0 and kv_bytes == 2
    beside = prefill_engine(config, arch, head_dim, kv_bytes)
    return "wgmma" if suits and beside != "mma" else "mma"


def prefill_engine(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> PrefillEngine:
    """What multiplies in prefill items: the architecture's best engine that the config suits."""
    return next(engine for engine in arch.engines if _SUITS[engine](config, head_dim, kv_bytes))


def _suits_pair(config: PodConfig, head_dim: int, kv_bytes: int) -> bool:
    # Two warpgroups that own a block of 64 rows each; with one that copies for both and, where
    # there is one, one that decodes they are all that an SM holds. 15 barriers with two stages; of
    # more than 128 keys the scores and weights leave a multiplying thread no register.
    p = config.prefill
    prefill = (p.q_rows, p.stages) == (128, 2) and p.kv_rows in (64, 96, 128)
    suits = prefill and runs_both(config) and config.decode.kv_rows % 64 == 0
    return suits and (kv_bytes == 2 or head_dim in _WIDENED_DIMS)


def _suits_wgmma(config: PodConfig, head_dim: int, kv_bytes: int) -> bool:
    # A warpgroup that owns two blocks of 64 rows, 64 keys per stage, K and V of two tiles in
    # flight, four barriers per stage; beside it another that copies, with registers for two such
    # pairs per SM.
    p = config.prefill
    tile = (p.q_rows, p.kv_rows, p.warps) == (128, 64, 4) and p.stages in (2, 3)
    alone = config.virtual_decode * config.decode.warps <= p.warps and config.ctas_per_sm <= 2
    dims = (64, 96, 128) if kv_bytes == 2 else _WIDENED_DIMS
    return tile and alone and head_dim in dims


_SUITS: dict[PrefillEngine, Callable[[PodConfig, int, int], bool]] = {
    "pair": _suits_pair,
    "wgmma": _suits_wgmma,
    "mma": lambda config, head_dim, kv_bytes: True,
}
