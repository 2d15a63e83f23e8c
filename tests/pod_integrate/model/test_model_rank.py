"""Ranking: sorted, feasible only, on the known GPU that is most like the asked one."""

from __future__ import annotations

import dataclasses

from pod_integrate.model.batches import Lengths, paper_geometry
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.published import POD_2
from pod_integrate.model.rank import nearest_device, rank
from pod_integrate.terms.config import TileConfig
from pod_integrate.terms.keys import DeviceKey

A100 = DEVICES["a100"].key
BATCHES = [Lengths.parse("p1k@4k+d32@4k"), Lengths.parse("p512@8k+d16@8k")]
SERIAL = dataclasses.replace(POD_2, strategy="serial")
TOO_LARGE = dataclasses.replace(POD_2, prefill=TileConfig(q_rows=256, kv_rows=256, warps=8))


def test_faster_configs_come_first_and_infeasible_ones_not_at_all() -> None:
    ranked = rank([SERIAL, TOO_LARGE, POD_2], BATCHES, paper_geometry(32, 8), A100)
    assert [entry.config for entry in ranked] == [POD_2, SERIAL]
    assert ranked[0].us < ranked[1].us


def test_unknown_generation_and_no_batches_rank_nothing() -> None:
    geometry = paper_geometry(32, 8)
    assert rank([POD_2], BATCHES, geometry, DeviceKey("some-gpu", "sm120", 100)) == []
    assert rank([POD_2], [], geometry, A100) == []


def test_a_sister_part_counts_as_the_nearest_known_one() -> None:
    assert nearest_device(DeviceKey("nvidia-a30", "sm80", 56)) is DEVICES["a100"]
    assert nearest_device(DeviceKey("nvidia-h200", "sm90", 132)) is DEVICES["h200"]
    assert nearest_device(DeviceKey("nvidia-l40", "sm89", 142)) is DEVICES["l40s"]
