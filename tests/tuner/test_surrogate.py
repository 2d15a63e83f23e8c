"""The surrogate that proposes configs: what it learns from, and what it never asks again."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from tuner.search.surrogate import SurrogateSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)
TILES = tuple("abcdefghijkl")
SPACE: dict[str, BaseDistribution] = {
    "tiles": CategoricalDistribution(TILES),
    "ratio": IntDistribution(-4, 4),
    "waves": IntDistribution(0, 4),
    "split": IntDistribution(8, 14),
}


def cost(params: dict[str, Any]) -> float:
    """0 at its best: tiles g, ratio 2, waves 1, split 11."""
    tile = 0.02 * abs(TILES.index(params["tiles"]) - 6)
    return float(
        tile
        + 0.01 * (params["ratio"] - 2) ** 2
        + 0.03 * abs(params["waves"] - 1)
        + 0.02 * abs(params["split"] - 11)
    )


def search(
    sampler: optuna.samplers.BaseSampler, trials: int, seed: int
) -> tuple[optuna.Study, float]:
    """The best true cost after so many trials that were measured with 1 % of noise."""
    rng, study = np.random.default_rng(seed), optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, cost(trial.params) + rng.normal(0, 0.01))
    return study, min(cost(trial.params) for trial in study.trials)


def test_forty_trials_of_three_thousand_configs_end_close_to_the_best() -> None:
    found = [search(SurrogateSampler(seed, 10), 40, seed)[1] for seed in range(3)]
    random = [search(optuna.samplers.RandomSampler(seed), 40, seed)[1] for seed in range(3)]
    assert statistics.median(found) <= 0.03 < statistics.median(random)


def test_a_seed_gives_the_same_proposals() -> None:
    first, again = (search(SurrogateSampler(5, 10), 16, 0)[0] for _ in range(2))
    assert [t.params for t in first.trials] == [t.params for t in again.trials]


def test_nothing_is_asked_again_whatever_became_of_it() -> None:
    small: dict[str, BaseDistribution] = {
        "tiles": CategoricalDistribution(("a", "b", "c")),
        "waves": IntDistribution(0, 3),
    }
    study = optuna.create_study(sampler=SurrogateSampler(0, 3))
    seen: list[tuple[Any, ...]] = []
    for number in range(12):
        trial = study.ask(small)
        seen.append(tuple(trial.params.values()))
        if number % 4 == 1:
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 4 == 2:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 4 == 3:
            # Somebody is measuring it.
            continue
        else:
            study.tell(trial, 0.1 * number)
    # Three are told after the ninth: until then draws are random, and may meet.
    learnt = seen[9:]
    assert len(set(learnt)) == len(learnt) and not set(learnt) & set(seen[:9])


def test_what_cannot_run_is_avoided_with_its_neighbours() -> None:
    study = optuna.create_study(sampler=SurrogateSampler(1, 8))
    asked = []
    for number in range(60):
        trial = study.ask(SPACE)
        if trial.params["tiles"] < "g":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, cost(trial.params))
        if number >= 30:
            asked.append(trial.params["tiles"])
    assert sum(tiles >= "g" for tiles in asked) > 20


def test_what_is_fixed_stays_so_and_is_learnt_about_from_the_rest() -> None:
    sampler = SurrogateSampler(2, 10)
    study, _ = search(sampler, 40, 0)
    sampler.fixed = {"tiles": "a"}
    found = []
    for _ in range(6):
        trial = study.ask(SPACE)
        assert trial.params["tiles"] == "a"
        found.append(cost(trial.params))
        study.tell(trial, found[-1])
    # These tiles alone cost 0.12: the rest of the config is soon good.
    assert min(found) <= 0.15 and len({tuple(t.params.values()) for t in study.trials[-6:]}) == 6
