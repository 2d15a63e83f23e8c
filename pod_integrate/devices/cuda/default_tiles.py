"""Tiles of a GPU's default configs."""

from __future__ import annotations

from pod_integrate.devices.cuda.architectures import Architecture
from pod_integrate.terms.config import PodConfig, TileConfig


def default_tiles(arch: Architecture, head_dim: int, kv_bytes: int = 2) -> PodConfig:
    """Two CTAs per SM, so that one of each op can overlap, with the largest tiles that fit.

    At head dim 256 that leaves prefill no tile of Hopper's matrix unit: there an SM's only CTA runs
    one op at a time, on an H200 prefill in 0.33 to 0.59 of the time, decodes in 0.8 to 1.03.

    kv_bytes  of an element of K and V
    """
    if (head_dim, kv_bytes) == (256, 2) and "pair" in arch.engines:
        return pair_tiles(head_dim)
    pick = _of_bytes if kv_bytes == 1 else _of_halves
    prefill, decode = pick(arch, head_dim, arch.smem_per_sm >= 164)
    return PodConfig(
        prefill=prefill,
        decode=decode,
        ctas_per_sm=2,
        max_prefill_waves=1,
        decode_split_tokens=4096,
    )


def pair_tiles(head_dim: int, kv_bytes: int = 2) -> PodConfig:
    """Of CTAs that run both ops, where a GPU has an engine for them.

    The decode item takes what 128 keys of prefill leave of the shared memory; at head dim 256,
    where 64 keys fit, and over a cache of bytes two of them have it in turn with the prefill item.
    """
    keys = 256 if kv_bytes == 1 else 128 if head_dim < 128 else 64
    return PodConfig(
        prefill=_tile(128, 64 if head_dim == 256 else 128, 2, 8),
        decode=_tile(16, keys, 1, 4),
        ctas_per_sm=1,
        max_prefill_waves=1,
        decode_split_tokens=4096,
    )


def _of_halves(arch: Architecture, head_dim: int, large: bool) -> tuple[TileConfig, TileConfig]:
    if head_dim == 256:
        # 64-row tiles with more keys per stage leave no second CTA at this head dim.
        prefill = _tile(64, 32, 1, 4) if large else _tile(32, 32, 1, 2)
        return prefill, _tile(16, 32, 2, 2) if large else _tile(16, 32, 1, 2)
    if head_dim == 128 and not large:
        return _tile(64, 64, 1, 4), _tile(16, 64, 1, 4)
    if head_dim == 128 and arch.capability == (8, 0):
        # 64 keys per stage cost an A100 a few spilled registers; two stages of 32 do not.
        return _tile(128, 32, 2, 4), _tile(16, 64, 2, 4)
    if head_dim == 128:
        # Among the best of a sweep on an H100 (docs/gpu.md): a lone decode CTA wants many keys.
        return _tile(128, 64, 2, 4), _tile(16, 192, 1, 4)
    if "wgmma" in arch.engines:
        # Two stages, so that prefill runs on wgmma: at head dim 64 1.3 to 1.4 times as fast on an
        # H200 as one.
        return _tile(128, 64, 2, 4), _tile(16, 192 if head_dim == 64 else 256, 1, 4)
    # At head dim 96 the smaller parts have no room for a second decode stage.
    return _tile(128, 64, 1, 4), _tile(16, 64, 2 if large or head_dim == 64 else 1, 4)


def _of_bytes(arch: Architecture, head_dim: int, large: bool) -> tuple[TileConfig, TileConfig]:
    """Half the bytes per key, so a stage of decode holds more keys.

    At head dim 128 one of 256 took an H200 0.83 to 1.11 of the time of 2 x 128 over 15 batches,
    0.97 in the mean, 0.92 to 0.97 in hybrid ones of long contexts
    (benchmarks/results/gpu_fp8.json).
    """
    if head_dim == 256:
        prefill = _tile(64, 32, 1, 4) if large else _tile(32, 32, 1, 2)
        return prefill, _tile(16, 64, 2, 2) if large else _tile(16, 32, 2, 2)
    if "wgmma" in arch.engines and head_dim in (64, 128):
        keys = (256, 1) if head_dim == 128 else (128, 2)
        return _tile(128, 64, 2, 4), _tile(16, *keys, 4)
    # Beside 128 rows the fragments of what is widened leave no register.
    prefill = _tile(128 if head_dim == 64 else 64, 64, 1, 4)
    return prefill, _tile(16, 128 if large else 64, 2, 4)


def _tile(*values: int) -> TileConfig:
    return TileConfig(**dict(zip(("q_rows", "kv_rows", "stages", "warps"), values, strict=True)))
