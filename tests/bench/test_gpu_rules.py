"""What the CUDA planner decides by itself, judged by recorded times of an H200."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.regret.recorded import Recorded, load
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import make_plan
from pod_integrate.terms.config import PodConfig

ROOT = Path(__file__).resolve().parents[2]
SMS = 132


class Verdict(NamedTuple):
    """Mean over a bucket's steps of the time of what is planned now, over the time before."""

    name: str
    ratio: float


def planned(recorded: Recorded, step: Lengths) -> PodConfig | None:
    """The recorded config that has the plan which the default gets now; None: none has it."""
    config = recorded.default
    whole = dataclasses.replace(config, max_prefill_waves=0)
    now, uncut = (make_plan(step, recorded.geometry, each, SMS) for each in (config, whole))
    if now.prefill_ctas != uncut.prefill_ctas:
        return None
    ratio = now.ratio if now.ratio in ((1, 1), (1, 2)) else (0, 0)
    return dataclasses.replace(whole, prefill_ctas=ratio[0], decode_ctas=ratio[1])


@functools.cache
def verdicts() -> list[Verdict]:
    found = []
    for recorded in load(ROOT / "benchmarks" / "results" / "gpu_rules.json")[1]:
        before = recorded.row(recorded.default)
        chosen = [planned(recorded, step) for step in recorded.steps]
        rows = [config and recorded.row(config) for config in chosen]
        if before is None or None in rows:
            continue
        calls = np.median(recorded.ratios, axis=2)
        times = [calls[row, i] / calls[before, i] for i, row in enumerate(rows)]
        found.append(Verdict(recorded.name, float(np.mean(times))))
    return found


def test_most_buckets_have_a_recorded_choice() -> None:
    assert len(verdicts()) >= 25


def test_no_bucket_is_slower_than_before_by_more_than_noise() -> None:
    assert [verdict for verdict in verdicts() if verdict.ratio > 1.07] == []


def test_buckets_are_faster_on_the_whole() -> None:
    logs = np.log([verdict.ratio for verdict in verdicts()])
    assert np.exp(logs.mean()) < 0.96
    assert sum(verdict.ratio < 0.9 for verdict in verdicts()) >= 6
