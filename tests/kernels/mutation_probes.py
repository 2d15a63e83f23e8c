"""Batches that planted bugs are looked for with, and their answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pod_integrate.measure.batches import Case, dequantised, make_batch
from pod_integrate.measure.reference import Attended, attention_reference
from pod_integrate.terms.keys import Geometry

SCALES: dict[str, Any] = {"k_scale": 0.7, "v_scale": 1.5}


class Probe(NamedTuple):
    """One call and its answer; `options` are the emulator's."""

    name: str
    case: Case
    plan: dict[str, Any]
    options: dict[str, Any]
    answer: Attended


def _probe(
    name: str,
    q_lens: list[int],
    kv_lens: list[int],
    heads: tuple[int, int] = (4, 2),
    page_size: int = 16,
    plan: dict[str, Any] | None = None,
    row_starts: bool = False,
    change: Callable[[Case], None] | None = None,
    **options: Any,
) -> Probe:
    """With scales of K and V these are of 8 bits."""
    head_dim = options.pop("head_dim", 64)
    geometry = Geometry.uniform((heads[0], heads[1], head_dim), "bf16", page_size=page_size)
    scales = {name: options.pop(name) for name in SCALES if name in options}
    if scales:
        geometry = dataclasses.replace(geometry, kv_dtype="e4m3")
    seeded = (
        make_batch(q_lens, kv_lens, geometry=geometry, seed=seed, row_starts=row_starts)
        for seed in range(1000)
    )
    # Page 0 belongs to nobody: its NaN is what a lookup left at 0 would find.
    case = next(case for case in seeded if not (case.batch.page_indices == 0).any())
    if change is not None:
        change(case)
    exact = attention_reference(*dequantised(case, **scales), **options)
    return Probe(name, case, plan or {}, options | scales, exact)


def _make_scores_equal(case: Case) -> None:
    """To 1.4e11 in float32, and all v stay."""
    case.q.fill_(133120.0)
    case.k_cache[~case.k_cache.isnan()] = 133120.0


def _make_scores_grow(case: Case) -> None:
    """From key to key of the only request, so that every tile moves the references."""
    case.q.abs_()
    size = case.batch.page_size
    for page, index in enumerate(case.batch.page_indices.tolist()):
        factors = 1 + (page * size + torch.arange(size)) / 32
        case.k_cache[index] = case.k_cache[index].abs() * factors[:, None, None]


def _make_scores_rise_below_zero(case: Case) -> None:
    """From key to key of the only request, by a thousand in all."""
    case.q.abs_()
    size = case.batch.page_size
    for page, index in enumerate(case.batch.page_indices.tolist()):
        factors = (320.0 - page * size - torch.arange(size)) / 16
        case.k_cache[index] = -case.k_cache[index].abs() * factors[:, None, None]


def _make_keys_tower(case: Case) -> None:
    """Two keys of the only request, each above all before by more than a float's exponent holds."""
    case.q.abs_()
    indices, size = case.batch.page_indices, case.batch.page_size
    for key, height in ((90, 20.0), (243, 40.0)):
        case.k_cache[int(indices[key // size]), key % size] = height


def _make_some_nan(case: Case) -> None:
    """A query row, and a key that some rows do not see."""
    case.q[3] = math.nan
    indices, size = case.batch.page_indices, case.batch.page_size
    case.k_cache[int(indices[60 // size]), 60 % size] = math.nan


def _make_rows_differ(case: Case) -> None:
    """Beyond the range of fp16, and far below that of the other rows."""
    case.q[:, 0] *= 2.0**18
    case.q[:, 1] *= 2.0**-20


def probes() -> list[Probe]:
    """Batches that reach every branch of the kernel."""
    split = {"decode_split_tokens": 64, "prefill_ctas": 1, "decode_ctas": 1}
    whole = {"max_prefill_waves": 0}
    sinks = torch.tensor([-math.inf, -1.0, 2.0, 8.0])
    return [
        _probe("hybrid, split", [70, 1, 1, 3, 1], [200, 300, 90, 40, 33], plan=split),
        _probe("window", [50, 1, 1], [220, 130, 90], page_size=1, row_starts=True, window_left=40),
        _probe("cap", [40, 1], [120, 100], page_size=7, logit_cap=4.0),
        _probe("sinks, split", [40, 1, 1], [150, 200, 50], plan=split, sinks=sinks),
        _probe("decode only", [1, 1, 1], [100, 37, 64], heads=(16, 1)),
        _probe("large scores", [150, 1], [310, 60], heads=(6, 2), scale=3.0),
        _probe(
            "growing scores", [1], [300], plan={"decode_split_tokens": 0}, change=_make_scores_grow
        ),
        _probe("scores below 0 that grow", [40], [310], change=_make_scores_rise_below_zero),
        _probe("keys that tower", [40], [310], plan=whole, change=_make_keys_tower),
        _probe("equal scores in all tiles", [40], [310], plan=whole, change=_make_scores_equal),
        _probe("cap above all scores", [40, 1], [120, 100], logit_cap=1e6),
        _probe("equal scores", [40, 1, 1], [150, 200, 50], plan=split, change=_make_scores_equal),
        _probe("NaN", [40, 1], [90, 100], plan=split, logit_cap=9.0, change=_make_some_nan),
        _probe(
            "many splits of growing scores",
            [1],
            [600],
            plan={"decode_split_tokens": 16},
            scale=1.0,
            change=_make_scores_grow,
        ),
        _probe("whole", [70, 1, 33], [90, 77, 33], plan=whole),
    ]


def pair_probes() -> list[Probe]:
    """And for CTAs that stay: items that follow each other, of one tile and of several."""
    follow = {"decode_split_tokens": 64, "max_prefill_waves": 0}
    return [
        _probe("items of one tile", [40] * 5, [40, 50, 64, 90, 96], plan=follow),
        _probe(
            "short and long items",
            [200, 30, 1, 1, 1],
            [400, 30, 150, 64, 33],
            plan=follow,
            scale=2.0,
        ),
        # A pair that has turned to decode beside the decoder, and one that still multiplies.
        _probe("decodes last", [30] + [1] * 8, [130, *range(100, 420, 40)], plan=follow),
        # More than a warp fetches page starts of at once.
        _probe("many requests", [30] + [1] * 35, [130, *range(20, 55)], plan=follow),
        *probes(),
    ]


def turn_probes(head_dim: int) -> list[Probe]:
    """For CTAs that stay and run one op at a time: both ways of turning, one op alone."""
    split = {"decode_split_tokens": 64, "max_prefill_waves": 0}
    prefill_first = split | {"prefill_ctas": 3, "decode_ctas": 1}
    return [
        _probe(name, q_lens, kv_lens, plan=plan, head_dim=head_dim)
        for name, plan, q_lens, kv_lens in (
            ("prefills last", split, [300, 100, 1, 1], [400, 150, 150, 64]),
            # Of one tile and of three, whose last values lie where the second decode item does.
            ("decodes last", prefill_first, [30] * 3 + [1] * 6, [30, 130, 130, *[100] * 6]),
            ("prefill alone", split, [200, 40], [200, 90]),
        )
    ]


def panel_probes(head_dim: int) -> list[Probe]:
    """For panels of fewer columns: what is not of them runs elsewhere."""
    split = {"decode_split_tokens": 64, "prefill_ctas": 1, "decode_ctas": 1}
    return [
        _probe("hybrid, split", [150, 1, 1, 3], [200, 300, 90, 40], plan=split, head_dim=head_dim),
        _probe("whole", [130, 1], [310, 77], page_size=7, head_dim=head_dim),
    ]


def wide_pair_probes() -> list[Probe]:
    """Of bytes in CTAs that stay: items one after the other, whose rows differ in size."""
    split = {"decode_split_tokens": 64, "max_prefill_waves": 0}
    return [
        _probe(name, q_lens, kv_lens, plan=split, change=_make_rows_differ, **SCALES)
        for name, q_lens, kv_lens in (
            ("long items and decodes", [300, 100, 1, 1], [400, 150, 150, 64]),
            ("items of one tile", [40] * 5 + [1], [40, 50, 64, 90, 96, 100]),
            ("decodes last", [30] + [1] * 8, [130, *range(100, 420, 40)]),
        )
    ]


def byte_probes() -> list[Probe]:
    """The same of K and V of 8 bits, as far as these are read in other ways."""
    split = {"decode_split_tokens": 64, "prefill_ctas": 1, "decode_ctas": 1}
    whole = {"max_prefill_waves": 0}
    return [
        _probe("hybrid, split", [70, 1, 1, 3, 1], [200, 300, 90, 40, 33], plan=split, **SCALES),
        _probe("whole", [150, 1, 33], [310, 77, 33], page_size=7, plan=whole, **SCALES),
        _probe("cap", [40, 1], [120, 100], page_size=7, logit_cap=4.0, **SCALES),
        _probe("sizes of rows", [40, 1], [90, 100], change=_make_rows_differ, **SCALES),
    ]
