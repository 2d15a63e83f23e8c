"""The configs that truth is measured for: a part of the tuner's search space, every combination.

A search over this part finds what it asks for recorded. Configs with the same plan of every step
are one row: the GPU cannot tell them apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from pod_integrate.devices.base import Choices, OneOf, Range, Target
from pod_integrate.devices.cuda.choices import TILES, tiles_of
from pod_integrate.devices.cuda.planning import STAMP_WORD, plan_batch
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.model.batches import Lengths
from pod_integrate.terms.config import PodConfig, Strategy
from pod_integrate.terms.keys import Geometry

# What every search tries first, then two shipped variants with more CTAs per SM.
MEASURED_TILES = (*TILES[:6], TILES[13], TILES[15])
_RATIOS = ((0, 0), (1, 1), (2, 1), (4, 1), (1, 2), (1, 4))
_WAVES = (0, 1, 2, 3)
_SPLITS = (256, 512, 1024, 2048, 4096, 8192, 0)
_STRATEGIES: tuple[Strategy, ...] = ("fused", "serial", "streams")


class Grid(NamedTuple):
    """Values of each field; `tiles` as devices/cuda/choices.py names them."""

    tiles: tuple[str, ...] = MEASURED_TILES
    ratios: tuple[tuple[int, int], ...] = _RATIOS
    waves: tuple[int, ...] = _WAVES
    splits: tuple[int, ...] = _SPLITS
    strategies: tuple[Strategy, ...] = _STRATEGIES

    def configs(self, base: PodConfig) -> list[PodConfig]:
        """Every combination; ratios mean something in fused launches only."""
        return [
            dataclasses.replace(
                with_tiles(base, tiles_of(tiles)),
                strategy=strategy,
                prefill_ctas=ratio[0],
                decode_ctas=ratio[1],
                max_prefill_waves=waves,
                decode_split_tokens=split,
            )
            for tiles, strategy in itertools.product(self.tiles, self.strategies)
            for ratio in (self.ratios if strategy == "fused" else self.ratios[:1])
            for waves, split in itertools.product(self.waves, self.splits)
        ]


# What a planner decides by itself where a config leaves it open.
RULES = Grid(
    tiles=(TILES[0], TILES[3]),
    ratios=((0, 0), (1, 1), (2, 1), (4, 1), (1, 2)),
    waves=(0, 1),
    splits=(1024, 2048, 4096, 8192, 0),
    strategies=("fused", "streams"),
)
TINY = Grid(tiles=TILES[:1], ratios=_RATIOS[:2], waves=(0, 1), splits=(256, 0))


def choices(target: Target, geometry: Geometry) -> Choices:
    """The target's search space, cut down to what a Grid has."""
    whole = target.choices(geometry)
    mine: dict[str, Range | OneOf] = {
        "tiles": OneOf(MEASURED_TILES),
        "ratio": Range(-3, 3),
        "max_prefill_waves": Range(0, 3),
        "decode_split_tokens_log2": Range(8, 14),
    }
    return whole._replace(parameters={**whole.parameters, **mine})


def canonical(config: PodConfig, steps: Iterable[Lengths]) -> PodConfig:
    """The config whose time is measured in its place: what has no meaning on the steps at 0.

    Without both ops, and outside of fused launches, the ratio; without prefill, its split.
    """
    sides = [(bool(step.prefill.q_lens), bool(step.decode.q_lens)) for step in steps]
    if config.strategy != "fused" or not any(map(all, sides)):
        config = dataclasses.replace(config, prefill_ctas=0, decode_ctas=0)
    if not any(prefill for prefill, _ in sides):
        config = dataclasses.replace(config, max_prefill_waves=0)
    return config


def rows(
    configs: Sequence[PodConfig], steps: Sequence[Lengths], geometry: Geometry, sms: int
) -> dict[PodConfig, PodConfig]:
    """Each config's stand-in: the first with the same tiles, ratio, strategy and plans."""
    plans: dict[PodConfig, tuple[bytes, ...]] = {}
    first: dict[tuple[object, ...], PodConfig] = {}
    found: dict[PodConfig, PodConfig] = {}
    for config in configs:
        own = canonical(config, steps)
        # Changes nothing of what is planned but the header.
        plain = dataclasses.replace(own, prefill_ctas=0, decode_ctas=0)
        if plain not in plans:
            plans[plain] = tuple(_plan(plain, step, geometry, sms) for step in steps)
        same = (own.prefill_ctas, own.decode_ctas, own.strategy, *plans[plain])
        tiles = (own.prefill, own.decode, own.ctas_per_sm, own.virtual_decode)
        found[config] = first.setdefault((*tiles, *same), own)
    return found


def _plan(config: PodConfig, step: Lengths, geometry: Geometry, sms: int) -> bytes:
    indptr = torch.zeros(len(step.q_lens) + 1, dtype=torch.int32)
    indptr[1:] = torch.tensor(step.q_lens).cumsum(0)
    kv_lens = torch.tensor(step.kv_lens, dtype=torch.int32)
    planned = plan_batch(indptr, kv_lens, geometry, config, num_sms=sms)
    planned.words[STAMP_WORD] = 0
    # Thousands of plans are compared; some have a megabyte.
    data = planned.words.numpy().tobytes() + repr(planned.capacity).encode()
    return hashlib.blake2b(data, digest_size=16).digest()
