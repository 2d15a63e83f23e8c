"""What every Device promises, run over those that this machine has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.emulated import GEOMETRY, emulated_gpu

from pod_integrate.devices.base import Device, OneOf, Range
from pod_integrate.devices.call import Call
from pod_integrate.devices.registry import device_named, device_of, standing_in, target_of
from pod_integrate.errors import (
    ConfigError,
    ConfigInfeasibleError,
    DtypeError,
    ShapeError,
    UnsupportedFeatureError,
)
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.op import attend, hybrid_attention
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import DTYPES
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.scalars import Scalars
from tuner.search import space

MAKERS: dict[str, Callable[[], Device]] = {
    "cpu": lambda: device_named("cpu"),
    "emulated": emulated_gpu,
    "cuda": lambda: device_named("cuda"),
}
HERE = [name for name in MAKERS if name != "cuda" or torch.cuda.is_available()]


@pytest.fixture(params=HERE)
def device(request: pytest.FixtureRequest) -> Device:
    return MAKERS[request.param]()


def geometry_on(device: Device) -> Geometry:
    """Of the emulated tests' shapes, in the precision that the kernel likes best."""
    name = DTYPES[device.limits.dtypes[0]]
    return dataclasses.replace(GEOMETRY, dtype=name, kv_dtype=name)


def test_key_reads_back_and_names_a_target_of_the_same_mind(device: Device) -> None:
    geometry = geometry_on(device)
    key = DeviceKey.parse(str(device.key))
    assert key == device.key and device.key_of(device.key.units) == key
    target = target_of(key)
    assert target.choices(geometry) == device.target.choices(geometry)
    assert target.default_config(geometry) == device.target.default_config(geometry)
    target.require_feasible(device.default_config(geometry), geometry)


def test_a_device_measures_what_it_traced(device: Device) -> None:
    assert device.target.can_measure(device.key)
    assert not device.target.can_measure(DeviceKey("other", device.key.capability, 1))


def test_choices_are_plain_data_that_the_search_can_draw_from(device: Device) -> None:
    geometry = geometry_on(device)
    choices = device.choices(geometry)
    for choice in choices.parameters.values():
        assert isinstance(choice, Range | OneOf)
        assert choice.low <= choice.high if isinstance(choice, Range) else choice.names
    assert "serial" in dict(choices.first)
    for _, config in choices.first:
        device.require_feasible(config, geometry)
        assert space.decode(space.encode(config, choices), config) == config


def test_what_does_not_fit_is_refused_before_anything_is_built(device: Device) -> None:
    geometry = geometry_on(device)
    large = dataclasses.replace(
        device.default_config(geometry),
        prefill=dataclasses.replace(device.default_config(geometry).prefill, kv_rows=4096),
    )
    for refuse in (device.require_feasible, lambda c, g: device.attention(g, c)):
        with pytest.raises(ConfigInfeasibleError, match="Lower|Set"):
            refuse(large, geometry)


def test_attention_is_made_once_and_a_build_comes_before_it(device: Device) -> None:
    geometry = geometry_on(device)
    config = device.default_config(geometry)
    device.load()
    device.build(geometry, config)
    attention = device.attention(geometry, config)
    assert device.attention(geometry, config) is attention
    assert attention.config == config
    assert device.attention(geometry).config == config


def test_attention_answers_as_the_reference(device: Device) -> None:
    geometry = dataclasses.replace(geometry_on(device), window_left=100)
    case = make_batch(
        [70, 1, 1, 33], [200, 300, 90, 40], geometry=geometry, seed=3, device=device.place
    )
    out = torch.full_like(case.q, torch.nan)
    lse = torch.full(case.q.shape[:2], torch.nan, device=device.place)
    config: PodConfig = device.default_config(geometry)
    call = Call(*case, Scalars(0.1, 100), None, out, lse)
    device.attention(geometry, config)(call)
    want = attention_reference(*case, scale=0.1, window_left=100)
    torch.testing.assert_close(out.double(), want.out, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)
    torch.testing.assert_close(lse.double(), want.lse, atol=1e-4, rtol=0)


def test_the_op_runs_on_the_device_that_holds_its_tensors(device: Device) -> None:
    geometry = geometry_on(device)
    case = make_batch([5, 1], [20, 9], geometry=geometry, seed=4, device=device.place)
    want = attention_reference(*case)
    with standing_in(device), torch.inference_mode():
        assert device_of(case.q) is device
        direct = hybrid_attention(*case)
    with standing_in(device), torch.no_grad(), torch.profiler.profile() as seen:
        watched = hybrid_attention(*case)
    assert "pod::hybrid_attention" in {event.key for event in seen.key_averages()}
    torch.testing.assert_close(
        direct.out.double(), want.out, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE
    )
    assert torch.equal(direct.out, watched.out) and torch.equal(direct.lse, watched.lse)


def test_a_prepared_attention_is_called_without_a_search(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = geometry_on(device)
    case = make_batch([5, 1], [20, 9], geometry=geometry, seed=4, device=device.place)
    attention = device.attention(geometry)
    with standing_in(device), torch.inference_mode():
        want = hybrid_attention(*case)
        monkeypatch.setattr(device, "_found", None)
        got = attend(attention, *case, Scalars(geometry.head_dim**-0.5))
    assert torch.equal(got.out, want.out) and torch.equal(got.lse, want.lse)


@pytest.mark.parametrize(
    "other",
    [
        {"page_size": 8},
        {"dtype": "fp16", "kv_dtype": "fp16"},
        {"head_dim": 128},
        {"num_kv_heads": 4},
        {"num_q_heads": 8},
        {"window_left": 7},
        {"logit_cap": 30.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_prepared_attention_takes_calls_of_its_own_geometry_only(
    device: Device, other: dict[str, Any]
) -> None:
    geometry = geometry_on(device)
    attention = device.attention(geometry)
    changed = dataclasses.replace(geometry, **other)
    case = make_batch([5, 1], [20, 9], geometry=changed, seed=4, device=device.place)
    scalars = Scalars(0.1, changed.window_left, changed.logit_cap)
    with torch.inference_mode(), pytest.raises(ShapeError, match="was made for .*, the call is of"):
        attend(attention, *case, scalars)


def test_shapes_are_checked_on_every_device(device: Device) -> None:
    case = make_batch([5, 1], [20, 9], geometry=geometry_on(device), seed=4, device=device.place)
    with standing_in(device), torch.inference_mode():
        with pytest.raises(ShapeError, match="v_cache must be"):
            hybrid_attention(case.q, case.k_cache, case.v_cache[:-1], case.batch)
        with pytest.raises(DtypeError, match="v_cache is"):
            hybrid_attention(case.q, case.k_cache, case.v_cache.double(), case.batch)


@pytest.mark.parametrize("name", ["k_scale", "v_scale"])
@pytest.mark.parametrize("value", [0.5, 1.0000001, 0.0, -1.0, math.nan, math.inf])
def test_scale_of_a_cache_is_refused_politely(device: Device, name: str, value: float) -> None:
    case = make_batch([5, 1], [20, 9], geometry=geometry_on(device), seed=4, device=device.place)
    out = torch.full_like(case.q, 7)
    words = (
        rf"^{name} is \S+, but only a cache of float8_e4m3fn is scaled and .*float\d+; "
        f"leave {name} at 1, and"
    )
    bad: dict[str, Any] = {"out": out, name: value}
    good: dict[str, Any] = {"out": out, name: 1}
    with standing_in(device), torch.inference_mode():
        with pytest.raises(UnsupportedFeatureError, match=words):
            hybrid_attention(*case, **bad)
        with torch.profiler.profile(), pytest.raises(UnsupportedFeatureError, match=words):
            hybrid_attention(*case, **bad)
        assert (out == 7).all()
        hybrid_attention(*case, **good)
    assert not (out == 7).all()


def test_clock_and_timer_tell_seconds(device: Device) -> None:
    clock, told = device.clock(), list[float | None]()
    clock.stop(clock.start(), told.append)
    device.timer()(lambda: None)
    clock.harvest()
    assert len(told) == 1 and told[0] is not None and told[0] >= 0
    assert device.timer()(lambda: torch.zeros(9, device=device.place)) > 0


def test_uploads_arrive(device: Device) -> None:
    sent = device.upload([1, 2], torch.int32)
    assert sent.tolist() == [1, 2] and sent.dtype == torch.int32 and sent.device == device.place


def test_units_are_those_asked_for_or_refused(device: Device) -> None:
    before = device.key
    with device.with_units(before.units):
        assert device.key == before
    other = before.units + 1
    if device.target.unit == "core":
        with device.with_units(other):
            assert device.key == device.key_of(other) and device.key.units == other
    else:
        for refuse in (device.key_of, device.with_units):
            with pytest.raises(ConfigError, match="always runs on all of its SMs"):
                refuse(other)
    assert device.key == before
