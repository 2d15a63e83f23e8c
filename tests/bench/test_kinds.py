"""Two kinds of steps in one bucket: found where they are there, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from test_regret import recorded

from benchmarks.regret.kinds import cut, features, gain


def test_two_kinds_that_want_different_configs_are_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(1.0, 0.01, (300, 10))
    # The first config is a tenth faster on the first steps, the second one on the others.
    known[0, :5] -= 0.1
    known[1, 5:] -= 0.1
    found = cut(known, [1.0] * 5 + [2.0] * 5)
    assert found is not None and found.steps == 5
    assert found.gain > 3 and found.chance < 0.02
    # The same data by something that has nothing to do with it.
    other = cut(known, [1.0, 2.0] * 5)
    assert other is not None and other.chance > 0.05


def test_one_kind_gains_what_any_cut_gains() -> None:
    found = cut(np.tile([[1.0], [0.9]], (1, 10)), [float(i) for i in range(10)])
    assert found is not None and (found.gain, found.chance) == (0.0, 1.0)
    assert cut(np.ones((2, 10)), [3.0] * 10) is None


def test_a_gain_is_what_two_configs_save_of_the_best_ones_time() -> None:
    known = np.array([[1.0, 3.0], [2.0, 1.0]])
    # One config takes 3, two take 2.
    assert gain(known, (0,)) == pytest.approx(100 / 3)


def test_every_step_has_each_feature() -> None:
    found = features(recorded())
    assert all(len(values) == len(recorded().steps) for values in found.values())
    assert set(found["chunks"]) <= {1.0, 2.0} and min(found["skew"]) >= 1 and min(found["work"]) > 0
