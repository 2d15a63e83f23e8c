"""What the CUDA planner decides by itself, judged by recorded times of an H200."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.regret.recorded import Recorded, load
from pod_integrate.devices.cuda.planning import Capacity
from pod_integrate.devices.cuda.side_by_side import may_run_beside, runs_beside
from pod_integrate.devices.registry import target_of
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import make_plan
from pod_integrate.terms.config import PodConfig

ROOT = Path(__file__).resolve().parents[2]
SMS = 132


class Verdict(NamedTuple):
    """Mean over a bucket's steps of the time of what is planned now, over the time before."""

    name: str
    ratio: float


@functools.cache
def records(name: str) -> list[Recorded]:
    return load(ROOT / "benchmarks" / "results" / f"{name}.json")[1]


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
    for recorded in records("gpu_rules"):
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


def launched(recorded: Recorded, step: Lengths) -> PodConfig:
    """The recorded config that does what the default does now."""
    now = target_of(recorded.device).default_config(recorded.geometry)
    plan = make_plan(step, recorded.geometry, now, SMS)
    grids = Capacity(plan.prefill_ctas, plan.decode_ctas, len(plan.merge), plan.partial_rows)
    beside = may_run_beside(now, recorded.device) and runs_beside(grids, now, SMS)
    return dataclasses.replace(now, strategy="streams") if beside else now


@functools.cache
def default_times() -> dict[str, tuple[float, float]]:
    """By bucket: time of the default over that of the default before, and over the best."""
    found = {}
    for recorded in records("gpu_rules_beside"):
        calls = np.median(recorded.ratios, axis=2)
        rows = [recorded.row(launched(recorded, step)) for step in recorded.steps]
        times = [calls[row, i] for i, row in enumerate(rows) if row is not None]
        assert len(times) == len(rows)
        now = float(np.dot(times, recorded.weights))
        found[recorded.name] = now, now / recorded.best
    return found


@pytest.mark.parametrize(("part", "most"), [("", 1.04), ("+", 1.035)])
def test_default_is_close_to_the_best_recorded_config(part: str, most: float) -> None:
    logs = [np.log(over) for name, (_, over) in default_times().items() if part in name]
    assert len(logs) >= 22 and np.exp(np.mean(logs)) < most


def test_no_hybrid_bucket_is_slower_than_with_the_default_before() -> None:
    hybrid = {name: now for name, (now, _) in default_times().items() if "+" in name}
    # One at 1.03 has 304 prefill CTAs, where all that changed is the length of decode items.
    assert {name for name, now in hybrid.items() if now > 1.01} <= {"16/16/128 p2k@2k+d32@2k"}
    assert max(hybrid.values()) < 1.04
