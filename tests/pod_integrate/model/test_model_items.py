"""The decoded plan is the kernel's: every visible pair once, fields where the kernel reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pod_integrate.model.batches import Lengths, paper_geometry
from pod_integrate.model.items import make_plan
from pod_integrate.model.published import POD_2, POD_4
from pod_integrate.terms.config import PodConfig

GEOMETRY = paper_geometry(8, 2)
SPLIT = dataclasses.replace(POD_4, decode_split_tokens=64, max_prefill_waves=4)


@pytest.mark.parametrize("config", [POD_2, SPLIT], ids=PodConfig.short)
@pytest.mark.parametrize("window", [-1, 40])
def test_items_cover_every_visible_pair_once(config: PodConfig, window: int) -> None:
    lengths = Lengths.of([1, 70, 3, 1, 0], [300, 200, 3, 1, 9])
    geometry = dataclasses.replace(GEOMETRY, window_left=window)
    plan = make_plan(lengths, geometry, config, 4)
    group = geometry.num_q_heads // geometry.num_kv_heads
    for request, (q_len, kv_len) in enumerate(zip(*lengths, strict=True)):
        for head in range(geometry.num_kv_heads):
            seen = np.zeros((q_len * group, kv_len), dtype=int)
            for item in np.concatenate([plan.prefill, plan.decode]):
                if (item["request"], item["kv_head"]) == (request, head):
                    rows = slice(item["row0"], item["row0"] + item["rows"])
                    seen[rows, item["kv0"] : item["kv1"]] += 1
            row = kv_len - q_len + np.arange(q_len * group)[:, None] // group
            key = np.arange(kv_len)
            visible = (key <= row) & ((window < 0) | (key >= row - window))
            assert (seen[visible] == 1).all() and (seen <= 1).all()


def test_decode_ctas_hold_virtual_decode_items() -> None:
    plan = make_plan(Lengths.parse("p64@64+d9@100"), GEOMETRY, POD_2, 108)
    assert len(plan.decode) == 18 and plan.decode_ctas == 5
    assert plan.prefill_ctas == len(plan.prefill)
