"""The fluid engine: exact answers where there is one, conservation everywhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pod_integrate.model.demand import Demand
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.engine import KNEE, Cta, Sms, _limit

DEVICE = dataclasses.replace(
    DEVICES["a100"],
    key=dataclasses.replace(DEVICES["a100"].key, units=2),
    dram_bytes=100.0,
    dram_share=1.0,
    l2_bytes=1e9,
)
# Events this close are one; waves of equal CTAs are exact but for rounding.
EVENT = 0.001


def demand(
    *, tensor: float = 0.0, dram: float = 0.0, alone: float = 1.0, fixed: float = 0.0
) -> Demand:
    one = {name: np.ones(1) for name in Demand._fields}
    given = {"tensor": tensor, "dram": dram, "l2": dram, "alone": alone, "fixed": fixed}
    return Demand(**one | {name: np.full(1, value) for name, value in given.items()})


def run(count: int, wanted: Demand, slots: int) -> Sms:
    sms = Sms(DEVICE, slots)
    left = iter([Cta("prefill", wanted, 0)] * count)
    sms.run(lambda _: next(left, None))
    assert len(sms.records) == count
    return sms


def test_cta_alone_takes_its_start_and_its_shortest_time() -> None:
    assert run(1, demand(tensor=0.5, alone=3.0, fixed=2.0), 1).now == pytest.approx(5.0, rel=EVENT)


def test_ctas_of_one_sm_share_its_tensor_pipes() -> None:
    # Four CTAs of one second each on two SMs: two seconds of work per SM.
    assert run(4, demand(tensor=1.0), 2).now == pytest.approx(2.0, rel=EVENT)


def test_all_sms_share_memory() -> None:
    assert run(4, demand(dram=100.0), 2).now == pytest.approx(4.0, rel=EVENT)


def test_a_thin_last_wave_is_spread_over_sms() -> None:
    # Six CTAs on 2 x 2 slots: the last two run on different SMs, at full tensor rate each.
    sms = run(6, demand(tensor=1.0), 2)
    assert {r.sm for r in sms.records if r.begin > 0} == {0, 1}
    assert sms.now == pytest.approx(3.0, rel=2 * EVENT)


def test_compute_and_loads_together_obey_the_knee() -> None:
    # One CTA per SM, tensor pipes busy all of a second, memory too: both at 2 ** (-1 / KNEE).
    sms = run(2, demand(tensor=1.0, dram=50.0), 1)
    assert sms.now == pytest.approx(2 ** (1 / KNEE), rel=EVENT)


def test_no_resource_is_ever_oversubscribed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sms = Sms(DEVICE, 3)
        shape = (2, 3)
        sms.busy = rng.random(shape) < 0.8
        sms.limit = rng.uniform(0.1, 10, shape)
        sms.tensor, sms.dram, sms.l2 = (rng.uniform(0, hi, shape) for hi in (1, 80, 8e8))
        sms.warps, sms.in_flight = (rng.integers(1, 9, shape).astype(float) for _ in range(2))
        rates = sms._rates()
        assert (rates <= sms.limit * (1 + 1e-9)).all() and (rates[~sms.busy] == 0).all()
        assert (rates[sms.busy] > 0).all()
        assert ((rates * sms.tensor).sum(axis=1) <= 1 + 1e-9).all()
        assert (rates * sms.dram).sum() <= DEVICE.dram_bytes * (1 + 1e-9)
        assert (rates * sms.l2).sum() <= DEVICE.l2_bytes * (1 + 1e-9)


def test_a_short_resource_is_used_up_and_small_demands_are_met() -> None:
    wanted, cost, weight = np.array([[1.0, 10.0, 10.0]]), np.ones((1, 3)), np.array([[1.0, 1, 3]])
    limit = np.minimum(wanted, _limit(wanted, cost, weight, 9.0))
    np.testing.assert_allclose(limit, [[1.0, 2.0, 6.0]])
