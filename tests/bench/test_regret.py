"""Regret: what a record answers, and what the comparison of searches makes of it."""

from __future__ import annotations

import argparse
import functools
import math
import shlex
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.gpu.truth.buckets import TRAFFIC
from benchmarks.gpu.truth.grid import Grid
from benchmarks.regret import transfer
from benchmarks.regret.__main__ import command, summary
from benchmarks.regret.invented import invent
from benchmarks.regret.recorded import Recorded
from benchmarks.regret.searches import SEARCHES, Search, run
from pod_integrate.devices.cuda.choices import TILES
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey

H200 = DeviceKey("nvidia-h200", "sm90", 132)
# The default is among its configs, whatever it is.
_SPLIT = target_of(H200).default_config(TRAFFIC[1].geometry).decode_split_tokens
SMALL = Grid(
    tiles=(TILES[0], TILES[4]), ratios=((0, 0), (1, 1)), waves=(0, 1), splits=(_SPLIT,),
    strategies=("fused",),
)  # fmt: skip


@functools.cache
def document() -> dict[str, Any]:
    return invent(TRAFFIC[1], SMALL, 0)


def recorded(**changes: Any) -> Recorded:
    return Recorded({**document(), **changes}, H200)


class Listed(Search):
    """Asks for what it was given."""

    def __init__(self, configs: list[PodConfig]) -> None:
        self.configs, self.told = list(configs), dict[PodConfig, float | None]()

    def ask(self) -> PodConfig | None:
        return self.configs.pop(0) if self.configs else None

    def tell(self, config: PodConfig, value: float | None) -> None:
        self.told[config] = value


def configs() -> list[PodConfig]:
    return SMALL.configs(target_of(H200).default_config(TRAFFIC[1].geometry))


def test_the_default_is_its_own_measure() -> None:
    known = recorded()
    row = known.row(known.default)
    assert row is not None and known.truth[row] == pytest.approx(1, abs=0.01)
    assert known.best <= known.truth[row]


def test_truth_weighs_steps_by_their_time() -> None:
    count = len(set(document()["cells"].split()))
    one = ", ".join(["10000 10000"] * 9 + ["20000 20000"])
    rest = ", ".join(["10000 10000"] * 10)
    known = recorded(rows=[one] + [rest] * (count - 1), default_us=[10.0] * 9 + [110.0])
    assert known.truth[0] == pytest.approx((9 * 10 + 2 * 110) / 200)


def test_what_was_not_measured_is_told_as_such_and_costs_no_trial() -> None:
    everything = configs()
    rows = list(document()["rows"])
    lost = int(document()["cells"].split()[2])
    rows[lost] = None
    known, search = recorded(rows=rows), Listed(everything)
    assert known.row(everything[2]) is None
    found = run(known, search, 2 * len(everything), 0, screen_steps=4, pairs=4)
    assert search.told[everything[2]] is None
    told = [value for value in search.told.values() if value is not None]
    assert len(told) == len(everything) - 1 < len(found)


def test_a_call_that_was_left_out_is_answered_by_the_others_of_its_step() -> None:
    rows = list(document()["rows"])
    steps = ["9000 -", "- 8000", *["10000 10000"] * 8]
    known = recorded(rows=[", ".join(steps), *rows[1:]])
    assert known.ratios[0, :2].tolist() == [[0.9, 0.9], [0.8, 0.8]]


def test_regret_is_zero_once_the_best_was_tried_and_never_rises_for_the_best_tried() -> None:
    known, everything = recorded(), configs()
    found = run(known, Listed(everything), 2 * len(everything), 0, screen_steps=4, pairs=4)
    tried = [each for _, each in found]
    assert tried == sorted(tried, reverse=True) and tried[-1] == 0
    assert all(force >= best for force, best in found)


def _one_row(steps: list[str], **changes: Any) -> tuple[Recorded, PodConfig, float]:
    """A record with one row of another config than the default; that, and the default's regret."""
    rows, plain = list(document()["rows"]), recorded()
    config = next(each for each in configs() if plain.row(each) != plain.row(plain.default))
    number = plain.row(config)
    assert number is not None
    rows[number] = ", ".join(steps)
    known = recorded(rows=rows, **changes)
    default = known.row(known.default)
    assert default is not None
    return known, config, known.truth[default] / known.best - 1


def test_the_default_is_in_force_until_a_comparison_on_other_steps_was_paid_for() -> None:
    known, better, before = _one_row(["5000 5000"] * 10)
    found = run(known, Listed([better] * 8), 12, 0, screen_steps=4, pairs=4)
    # Eight trials; six other steps cost as much as two trials of four.
    assert [force for force, _ in found] == [before] * 9 + [0.0] * 3


def test_what_looks_better_on_its_own_steps_only_is_not_put_in_force() -> None:
    # Drawn by their time, all eight trials are screened on the four long steps.
    long = [1000.0] * 4 + [0.001] * 6
    steps = ["5000 5000"] * 4 + ["12000 12000"] * 6
    known, lucky, before = _one_row(steps, default_us=long)
    found = run(known, Listed([lucky] * 8), 10, 0, screen_steps=4, pairs=4)
    assert found[-1][0] == pytest.approx(before)


def test_a_search_without_a_proposal_keeps_what_it_found() -> None:
    known = recorded()
    found = run(known, Listed(configs()[:3]), 6, 0, screen_steps=4, pairs=4)
    assert len(found) == 6 and found[2:] == [found[2]] * 4


def test_screening_draws_recorded_calls_only() -> None:
    known, rng = recorded(), np.random.default_rng(0)
    steps = np.array([1, 4, 6])
    calls = known.ratios[3, steps]
    for _ in range(20):
        assert calls.min() <= known.screened(3, steps, rng, 4) <= calls.max()


@pytest.mark.parametrize("name", [name for name in SEARCHES if name not in ("gp", "model first")])
def test_searches_propose_what_the_space_holds_and_nothing_twice(name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = recorded()
    search, asked = SEARCHES[name](known, 0), []
    for number in range(30):
        config = search.ask()
        assert config is not None
        asked.append(config)
        search.tell(config, math.sin(number))
    assert asked[0] == known.default and len(set(asked)) == 30
    assert set(asked) <= set(_whole(known))


def _whole(known: Recorded) -> set[PodConfig]:
    # The ratio of launches that are not fused is anybody's.
    ratios = Grid().ratios
    return {
        PodConfig.from_dict({**c.to_dict(), "prefill_ctas": a, "decode_ctas": b})
        for c in Grid().configs(known.default)
        for a, b in ratios
    }


def test_what_the_other_buckets_found_is_taught_the_nearest_first() -> None:
    new, near = recorded(), recorded(name="near", bucket="p512@4k+d64@4k")
    far = recorded(name="far", bucket="d32@4k")
    lessons = transfer.taught(new, [far, near], 6, 0)
    buckets = [str(lesson.traffic.bucket) for lesson in lessons]
    assert list(dict.fromkeys(buckets)) == ["p512@4k+d64@4k", "d32@4k"]
    assert buckets == sorted(buckets, reverse=True) and buckets.count("d32@4k") > 1
    # The latest first: the default, with which every search begins, comes last.
    assert lessons[-1].config == new.default != lessons[0].config


def test_a_search_is_near_once_it_stays_near() -> None:
    assert transfer.until_near([0.2, 0.01, 0.05, 0.03, 0.0]) == 4
    assert transfer.until_near([0.02, 0.0]) == 1 and transfer.until_near([0.1, 0.1]) == 3


def test_taught_searches_are_compared_with_those_alone_by_seed() -> None:
    paths = [
        {"alone": [[0.1] * 8, [0.2] * 8], "taught": [[0.1] * 8, [0.3] * 8]},
        {"alone": [[0.0] * 8, [0.0] * 8], "taught": [[0.02] * 8, [0.04] * 8]},
    ]
    # Worse by 1 and 7 % in the mean of the buckets: 4 +- 3.
    told = {"alone": 7.5, "taught": 11.5, "worse": 4.0, "error": 3.0}
    assert transfer.together(paths) == {"8": told}
    found = transfer.summary([[x / 100] * 8 for x in (1, 2, 3, 4, 5)])
    assert found == {"until_near": 1, "8": {"median": 3.0, "quartiles": [2.0, 4.0]}}


def test_summary_has_medians_of_what_was_chosen_and_of_the_best_tried() -> None:
    table = summary({"40": [(3.0, 1.0), (1.0, 0.5), (2.0, 0.0)]})
    assert table["40"]["median"] == 2.0 and table["40"]["best_tried"] == 0.5


def test_a_headline_names_the_command_that_repeats_its_run() -> None:
    options = argparse.Namespace(searches="study,model first", seeds=8, trials="24,40")
    assert shlex.split(command(options))[3:] == [
        *("--searches", "study,model first", "--seeds", "8", "--trials", "24,40"),
    ]
