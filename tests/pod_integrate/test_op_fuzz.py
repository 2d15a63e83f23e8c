"""hybrid_attention against the float64 reference: random batches, geometries and configs."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cpu.processor import ISAS, isa
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.measure.accuracy import attend_and_check
from pod_integrate.measure.batches import make_batch
from pod_integrate.terms.config import STRATEGIES, PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

LEVELS = [level for level in ISAS if ISAS.index(level) >= ISAS.index(isa())]
CPU = torch.device("cpu")


@st.composite
def lengths(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Up to five requests, a fifth of them padding, half of the rest decodes."""
    q_lens, kv_lens = [], []
    for _ in range(draw(st.integers(0, 5))):
        kv_len = draw(st.integers(1, 300))
        q_len = draw(st.one_of(st.just(1), st.integers(0, min(kv_len, 90))))
        q_lens.append(q_len)
        kv_lens.append(kv_len)
    return q_lens, kv_lens


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    kv_heads = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(["fp32", "bf16", "fp16"]))
    return Geometry(
        num_q_heads=kv_heads * draw(st.sampled_from([1, 2, 3, 4, 7, 8, 17])),
        num_kv_heads=kv_heads,
        head_dim=16 * draw(st.integers(2, 8)),
        dtype=dtype,  # type: ignore[arg-type]
        kv_dtype=dtype,  # type: ignore[arg-type]
        page_size=draw(st.sampled_from([1, 2, 5, 16, 64])),
    )


def tiles(max_rows: int) -> st.SearchStrategy[TileConfig]:
    rows = st.integers(1, max_rows // 16).map(lambda n: 16 * n)
    return st.builds(TileConfig, q_rows=rows, kv_rows=rows, stages=st.integers(1, 4))


def configs() -> st.SearchStrategy[PodConfig]:
    ratio = st.sampled_from([(0, 0), (1, 1), (1, 3), (3, 1), (2, 5)])
    rest = st.fixed_dictionaries(
        {
            "prefill": tiles(160),
            "decode": tiles(64),
            "ctas_per_sm": st.integers(1, 2),
            "max_prefill_waves": st.integers(0, 8),
            "decode_split_tokens": st.sampled_from([0, 16, 32, 112]),
            "virtual_decode": st.integers(1, 4),
            "strategy": st.sampled_from(STRATEGIES),
        }
    )
    return st.builds(
        lambda r, fields: PodConfig(prefill_ctas=r[0], decode_ctas=r[1], **fields), ratio, rest
    )


options = st.fixed_dictionaries(
    {
        "window_left": st.one_of(st.just(-1), st.integers(0, 100)),
        "logit_cap": st.sampled_from([0.0, 0.0, 1.5, 30.0]),
        "scale": st.sampled_from([None, 0.05, 1.0]),
    }
)


@pytest.mark.parametrize("level", LEVELS)
@hypothesis.settings(max_examples=40)
@hypothesis.given(
    lens=lengths(),
    geometry=geometries(),
    config=st.one_of(st.none(), configs()),
    option=options,
    sinks=st.booleans(),
    layout=st.fixed_dictionaries({"strided": st.booleans(), "row_starts": st.booleans()}),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_any_batch_and_config_matches_reference(
    level: str,
    lens: tuple[list[int], list[int]],
    geometry: Geometry,
    config: PodConfig | None,
    option: dict[str, Any],
    sinks: bool,
    layout: dict[str, Any],
    threads: int,
    seed: int,
) -> None:
    with mock.patch.dict(os.environ, POD_ATTN_ISA=level, POD_ATTN_THREADS=str(threads)):
        if config is not None:
            try:
                device_of(CPU).require_feasible(config, geometry)
            except ConfigInfeasibleError:
                hypothesis.reject()
        case = make_batch(*lens, geometry=geometry, seed=seed, **layout)
        sink_values = torch.linspace(-3, 3, geometry.num_q_heads) if sinks else None
        attend_and_check(case, config=config, sinks=sink_values, **option)
