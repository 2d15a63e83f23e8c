"""Tiles that a batch runs with: its config's, or others where the config leaves it to the batch.

Decode tiles of DECODE_ROWS hold any request that is a decode. A one-token step of a group of up to
FEW_ROWS heads leaves half of such a tile empty, and where decode runs on wgmma there is the same
tile with FEW_ROWS: over 31 batches an H200 took 0.97 of the time with it in CTAs that run both ops,
0.96 to 1.00 in hybrid batches that are not heavy with the default's
(benchmarks/results/gpu_tiles_rows_h200.json). A request of more rows, a few speculative tokens,
would be two items of it, which read the same K and V one after the other. So it runs batches whose
decodes have few rows, whatever the config's other settings.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Collection
from typing import Literal

import numpy as np
import torch

from pod_integrate.devices.cuda.decode_rows import DECODE_ROWS, FEW_ROWS, Counts, is_decode
from pod_integrate.devices.cuda.heavy_prefill import heavy_config, is_heavy
from pod_integrate.devices.cuda.limits import architecture, decode_engine, pair_decodes
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry

# Heavy in prefill, or of decodes with few rows.
Kind = Literal["heavy", "few"]
# Of the keys that decodes read, what may be read twice: about what the smaller tile gains.
_READ_TWICE = 0.03


def others(config: PodConfig, geometry: Geometry, device: DeviceKey) -> dict[Kind, PodConfig]:
    """What batches of a kind run with in place of `config`; kinds without: with itself.

    One that is heavy runs with few rows too, if it may: its decodes are not what it waits for.
    """
    found: dict[Kind, PodConfig] = {}
    heavy, few = heavy_config(config, geometry, device), few_config(config, geometry, device)
    if heavy is not None:
        found["heavy"] = few_config(heavy, geometry, device) or heavy
    if few is not None:
        found["few"] = few
    return found


def all_of(config: PodConfig, geometry: Geometry, device: DeviceKey) -> list[PodConfig]:
    """Everything that batches of `config` run with, itself first: what a part compiles before."""
    return [config, *others(config, geometry, device).values()]


def few_config(config: PodConfig, geometry: Geometry, device: DeviceKey) -> PodConfig | None:
    """`config` with decode tiles of FEW_ROWS, where its GPU has them and they hold a token's heads.

    None for a config whose bits are the same in any batch: its kernel cannot depend on the batch.
    """
    arch, kv_bytes = architecture(device.capability), ELEMENT_BYTES[geometry.kv_dtype]
    suits = config.decode.q_rows == DECODE_ROWS and geometry.group <= FEW_ROWS
    # At head dim 256 such tiles gained nothing: an H200 took 1.00 to 1.08 of the time.
    suits = suits and pair_decodes(geometry.head_dim, kv_bytes)
    if not suits or config.is_batch_invariant:
        return None
    if decode_engine(config, arch, geometry.head_dim, kv_bytes) != "wgmma":
        return None
    return dataclasses.replace(config, decode=dataclasses.replace(config.decode, q_rows=FEW_ROWS))


def kind_of(q: Counts, kv: Counts, geometry: Geometry, kinds: Collection[Kind]) -> Kind | None:
    """Which of `kinds` a batch is; one without decodes has few rows, since it has no other.

    q, kv  tokens and keys of each request; of different lengths, which no plan takes: none
    """
    if q.size != kv.size:
        return None
    if "heavy" in kinds and is_heavy(q, kv, geometry):
        return "heavy"
    return "few" if "few" in kinds and _has_few_rows(q, kv, geometry) else None


def batch_config(
    config: PodConfig, geometry: Geometry, device: DeviceKey, q: Counts, kv: Counts
) -> PodConfig:
    """What a batch runs with that is not captured; q, kv as in kind_of."""
    found = others(config, geometry, device)
    kind = kind_of(q, kv, geometry, found)
    return config if kind is None else found[kind]


def _has_few_rows(q: Counts, kv: Counts, geometry: Geometry) -> bool:
    # Any window that an int64 holds.
    q, kv = q.astype(np.float64), kv.astype(np.float64)
    seen = kv if geometry.window_left < 0 else np.minimum(kv, geometry.window_left + q)
    keys = np.where(is_decode(q, geometry.group) & (q > 0), seen, 0)
    twice = keys[q * geometry.group > FEW_ROWS].sum()
    return bool(twice <= _READ_TWICE * keys.sum())


class Weighed:
    """kind_of() of the last batch, which the layers of a step share."""

    def __init__(self, geometry: Geometry, kinds: Collection[Kind]) -> None:
        self._geometry, self._kinds = geometry, frozenset(kinds)
        self._last: (
            tuple[weakref.ref[torch.Tensor], weakref.ref[torch.Tensor], Kind | None] | None
        ) = None

    def __call__(self, batch: HybridBatch) -> Kind | None:
        """Which it is."""
        last = self._last
        if last and last[0]() is batch.q_indptr and last[1]() is batch.kv_lens:
            return last[2]
        q, kv = np.diff(batch.q_indptr.numpy()), batch.kv_lens.numpy()
        kind = kind_of(q, kv, self._geometry, self._kinds)
        self._last = weakref.ref(batch.q_indptr), weakref.ref(batch.kv_lens), kind
        return kind
