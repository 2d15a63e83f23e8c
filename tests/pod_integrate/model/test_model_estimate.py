"""The rough estimate: right pairs, above zero, in proportion to the work."""

from __future__ import annotations

import dataclasses

import pytest

from pod_integrate.model.devices import DEVICES
from pod_integrate.model.estimate import attention_us, rates_of
from pod_integrate.model.floors import CASES, cost_of, real_floor
from pod_integrate.terms.keys import DeviceKey, Dtype, Geometry

H100 = DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132)
ANY = [H100, DeviceKey("some-gpu", "sm120", 170), DeviceKey("some-cpu", "avx512", 2)]
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)


@pytest.mark.parametrize("device", ANY, ids=str)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_device_and_dtype_has_an_estimate(device: DeviceKey, dtype: Dtype) -> None:
    geometry = dataclasses.replace(GEOMETRY, dtype=dtype, kv_dtype=dtype)
    assert attention_us([1], [1], geometry, device) > 0
    assert attention_us([2], [2], geometry, device) > 0
    assert attention_us([0, 0], [5, 7], geometry, device) == 0


def test_decodes_cost_what_they_read_and_a_window_bounds_it() -> None:
    one, many = (attention_us([1] * n, [8192] * n, GEOMETRY, H100) for n in (1, 64))
    assert many == pytest.approx(64 * one)
    windowed = dataclasses.replace(GEOMETRY, window_left=1023)
    assert attention_us([1], [8192], windowed, H100) == pytest.approx(one / 8)


def test_published_cases_lie_within_a_factor_of_two_above_their_serial_floor() -> None:
    for case in CASES:
        lengths = case.lengths
        found = attention_us(lengths.q_lens, lengths.kv_lens, case.geometry, H100)
        floor = real_floor(cost_of(lengths, case.geometry), DEVICES["h100"])
        assert 1 <= found / floor.serial_us <= 2, case.name


def test_a_device_without_a_kernel_has_the_rates_of_cores() -> None:
    assert rates_of(DeviceKey.parse("x:foo:4")) == rates_of(DeviceKey.parse("y:avx2:4"))
