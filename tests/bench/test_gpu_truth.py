"""Truth, the recorded times that searches are judged by: what is measured, and how."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.common.timing import Call, ColdTimer
from benchmarks.gpu.truth import grid as grids
from benchmarks.gpu.truth import truth
from benchmarks.gpu.truth.buckets import RULES, TINY, TRAFFIC, Traffic
from benchmarks.gpu.truth.grid import Grid, choices
from benchmarks.gpu.truth.measure import Steps, measure, ratios
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.choices import tiles_of
from pod_integrate.devices.cuda.limits import require_fits
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey
from tuner.search import space

H200 = DeviceKey("nvidia-h200", "sm90", 132)
ARCH = limits.ARCHITECTURES["sm_90a"]


@pytest.mark.parametrize("traffic", [*TRAFFIC, *RULES, *TINY], ids=lambda traffic: traffic.name)
def test_steps_are_distinct_and_of_their_bucket(traffic: Traffic) -> None:
    steps = traffic.steps(10)
    assert len(set(steps)) == 10 and steps == traffic.steps(10)
    assert {str(Bucket.of(*step)) for step in steps} == {str(traffic.bucket)}


def test_rules_are_judged_on_buckets_of_their_own_names() -> None:
    assert len({traffic.name for traffic in RULES}) == len(RULES) > 20


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.name)
def test_what_a_search_over_the_grid_asks_for_is_in_it(traffic: Traffic) -> None:
    target = target_of(H200)
    default = target.default_config(traffic.geometry)
    known = set(Grid().configs(default))
    mine = choices(target, traffic.geometry)
    distributions = space.distributions(mine)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = [space.decode(study.ask(distributions).params, default) for _ in range(500)]
    # The ratio of anything but a fused launch says nothing.
    meant = [
        config
        if config.strategy == "fused"
        else PodConfig.from_dict({**config.to_dict(), "prefill_ctas": 0, "decode_ctas": 0})
        for config in asked
    ]
    assert {*meant, default, *(config for _, config in mine.first)} <= known


@pytest.mark.parametrize("head_dim", sorted({traffic.head_dim for traffic in TRAFFIC}))
def test_every_tile_of_the_grid_fits(head_dim: int) -> None:
    for tiles in Grid().tiles:
        require_fits(tiles_of(tiles), ARCH, head_dim)


def test_configs_with_one_plan_are_one_row() -> None:
    tiny = TINY[0]
    steps = tiny.steps(2)
    default = limits.default_tiles(ARCH, tiny.head_dim)
    # No prefill of these is cut, and no decode: nothing but ratio and strategy is left.
    configs = grids.TINY.configs(default)
    stands = grids.rows(configs, steps, tiny.geometry, 2)
    assert set(stands) == set(configs)
    kinds = {(c.strategy, c.prefill_ctas, c.decode_ctas) for c in stands.values()}
    assert len(set(stands.values())) == len(kinds) == 4
    alone = grids.rows(configs, TINY[1].steps(2), TINY[1].geometry, 2)
    assert {c.strategy for c in alone.values()} == {"fused", "serial", "streams"}
    assert len(set(alone.values())) == 3


def test_decode_splits_are_told_apart_where_they_cut() -> None:
    traffic = TRAFFIC[0]
    grid = Grid(tiles=Grid().tiles[:1], waves=(0, 1), splits=(256, 4096), strategies=("serial",))
    configs = grid.configs(limits.default_tiles(ARCH, traffic.head_dim))
    stands = grids.rows(configs, traffic.steps(2), traffic.geometry, 132)
    assert {c.decode_split_tokens for c in stands.values()} == {256, 4096}
    # Waves split prefill, and there is none.
    assert len(set(stands.values())) == 2


class _Slowing(ColdTimer):
    """A device that gets slower from call to call, and sleeps between rounds: each one's first
    call takes twice as long. virtual_decode is a config's true factor.
    """

    def __init__(self) -> None:
        super().__init__(Emulator(), 1)
        self.calls = 0

    def each(self, calls: Sequence[Call]) -> list[float]:
        found = []
        for number, call in enumerate(calls):
            self.calls += 1
            assert isinstance(call, functools.partial)
            asleep = 1.0 if number else 2.0
            found.append(asleep * 100.0 * call.args[1].virtual_decode * (1 + 0.001 * self.calls))
        return found


def test_a_config_is_compared_with_the_default_beside_it() -> None:
    machine, tiny = Emulator(), TINY[1]
    default = limits.default_tiles(ARCH, tiny.head_dim)
    configs = [
        PodConfig.from_dict({**tiles_of(name).to_dict(), "virtual_decode": factor})
        for factor, name in ((1, "p64x32s1w2-d16x32s2w2-c4-v1"), (2, "p32x32s1w2-d16x32s1w2-c2-v1"))
    ]
    case = Steps(machine, tiny.geometry, tiny.steps(1)).case(0)
    measured = measure(_Slowing(), machine, case, default, configs * 4, 3)
    for number, config in enumerate(configs * 4):
        found = ratios(measured, number)
        assert len(found) == 3
        # Within a group the device slows down by less than one percent.
        assert all(abs(ratio / 1e4 / config.virtual_decode - 1) < 0.01 for ratio in found)


def test_truth_of_tiny_buckets_is_whole(tmp_path: Path) -> None:
    truth.main(["--backend", "emulator", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "truth.json").read_text())
    assert len(document["buckets"]) == len(TINY)
    for traffic, bucket in zip(TINY, document["buckets"], strict=True):
        grid = Grid(**bucket["grid"])
        cells = list(map(int, bucket["cells"].split()))
        assert len(cells) == len(grid.configs(limits.default_tiles(ARCH, traffic.head_dim)))
        assert sorted(set(cells)) == list(range(len(bucket["rows"])))
        assert bucket["left_out"] == 0 and bucket["errors"] == {}
        steps = [truth.parse_step(text) for text in bucket["steps"]]
        assert steps == traffic.steps(3)
        for row in bucket["rows"]:
            calls = [list(map(int, step.split())) for step in row.split(", ")]
            assert [len(each) for each in calls] == [2 * traffic.repeats] * len(steps)
