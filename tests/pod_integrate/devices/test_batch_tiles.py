"""Batches of decodes with few rows run with decode tiles of 8 rows; what may not, does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.emulated import GEOMETRY, SMS

from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cpu.device import CpuDevice
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.batch_tiles import Kind, batch_config, few_config, kind_of, others
from pod_integrate.devices.cuda.choices import tiles_name, tiles_of
from pod_integrate.devices.cuda.limits import ARCHITECTURES, default_tiles, pair_tiles
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.devices.registry import target_of
from pod_integrate.errors import ShapeError
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.scalars import Scalars

H200, A100 = DeviceKey("nvidia-h200", "sm90", 132), DeviceKey("nvidia-a100", "sm80", 108)
LLAMA = Geometry.uniform((32, 8, 128), "bf16")
DEFAULT = default_tiles(ARCHITECTURES["sm_90a"], 128)


def few(config: PodConfig, geometry: Geometry = LLAMA, device: DeviceKey = H200) -> str | None:
    found = few_config(config, geometry, device)
    if found is None:
        return None
    target_of(device).require_feasible(found, geometry)
    assert dataclasses.replace(found, decode=config.decode) == config, "only the tile changes"
    return tiles_name(found)


def test_a_config_has_the_same_tile_with_8_rows_where_decode_runs_on_wgmma() -> None:
    assert few(DEFAULT) == "p128x64s2w4-d8x192s1w4-c2-v1"
    assert few(pair_tiles(128)) == "p128x128s2w8-d8x64s1w4-c1-v1"
    assert few(pair_tiles(64), dataclasses.replace(LLAMA, head_dim=64)) is not None
    # Strategy, ratio and splits are the config's own.
    tuned = dataclasses.replace(
        DEFAULT, strategy="streams", decode_split_tokens=1024, max_prefill_waves=0
    )
    assert few(tuned) == few(DEFAULT)
    for name in ("p128x64s1w4-d16x64s2w4-c2-v1", "p128x64s2w4-d16x32s1w1-c2-v4"):
        assert few(tiles_of(name)) is None, "mma.sync"
    assert few(tiles_of("p128x64s2w4-d8x192s1w4-c2-v1")) is None, "has them"
    assert few(DEFAULT, device=A100) is None


def test_groups_of_more_than_eight_heads_and_bytes_keep_16_rows() -> None:
    assert few(DEFAULT, Geometry.uniform((64, 8, 128), "bf16")) is not None
    assert few(DEFAULT, Geometry.uniform((72, 8, 128), "bf16")) is None
    assert few(DEFAULT, dataclasses.replace(LLAMA, kv_dtype="e4m3")) is None


def test_what_is_the_same_bits_in_any_batch_has_one_kernel() -> None:
    assert others(DEFAULT.batch_invariant(), LLAMA, H200) == {}
    unsplit = dataclasses.replace(DEFAULT, decode_split_tokens=0)
    assert others(unsplit.batch_invariant(), LLAMA, H200) == {}


def test_a_heavy_batch_runs_with_few_rows_too() -> None:
    found = others(DEFAULT, LLAMA, H200)
    assert set(found) == {"heavy", "few"}
    assert tiles_name(found["heavy"]) == "p128x128s2w8-d8x64s1w4-c1-v1"
    wide = Geometry.uniform((128, 8, 128), "bf16")
    assert {k: c.decode.q_rows for k, c in others(DEFAULT, wide, H200).items()} == {"heavy": 16}


@pytest.mark.parametrize(
    ("q_lens", "kv_lens", "kind"),
    [
        ([1] * 4, [5000] * 4, "few"),
        ([2] * 4, [5000] * 4, "few"),  # two tokens of four heads
        ([3] * 4, [5000] * 4, None),
        ([4, 1, 1, 1], [5000] * 4, None),
        ([4, *[1] * 40], [5000] * 41, "few"),  # a fortieth of the keys is read twice
        ([4, 0, 1], [5000, 5000, 5000], None),
        ([512, 1, 1], [600, 30000, 30000], "few"),
        ([512, 4], [900, 3000], "heavy"),
        ([512], [900], "heavy"),
        ([40], [600], "heavy"),  # no decode at all
        ([5], [40], "few"),
        ([1, 1], [10], None),
    ],
)
def test_a_batch_has_few_rows_if_hardly_a_key_would_be_read_twice(
    q_lens: list[int], kv_lens: list[int], kind: Kind | None
) -> None:
    q, kv = np.array(q_lens), np.array(kv_lens)
    assert kind_of(q, kv, LLAMA, others(DEFAULT, LLAMA, H200)) == kind
    assert kind_of(q, kv, LLAMA, {}) is None
    want = DEFAULT if kind is None else others(DEFAULT, LLAMA, H200)[kind]
    assert batch_config(DEFAULT, LLAMA, H200, q, kv) == want


def test_a_window_counts_what_it_lets_see() -> None:
    narrow = dataclasses.replace(LLAMA, window_left=127)
    q, kv = np.array([4, *[1] * 8]), np.array([300, *[40000] * 8])
    assert kind_of(q, kv, LLAMA, ["few"]) == "few" and kind_of(q, kv, narrow, ["few"]) is None


@pytest.fixture(scope="module")
def device() -> EmulatedDevice:
    return EmulatedDevice(Schedule(num_sms=SMS))


@pytest.fixture(scope="module")
def wide() -> PodConfig:
    return dataclasses.replace(tiles_of("p128x64s2w4-d16x64s2w4-c2-v1"), decode_split_tokens=64)


class Counting(Attention):
    """Runs what it was made of and counts."""

    def __init__(self, inner: Attention) -> None:
        super().__init__(inner.geometry, inner.config)
        self.inner, self.ran = inner, 0

    def __call__(self, call: Call) -> None:
        self.ran += 1
        self.inner(call)


def both(device: EmulatedDevice, wide: PodConfig) -> tuple[CudaAttention, Counting]:
    """An attention that has the other tile, and that one."""
    known = device.attention(GEOMETRY, wide)
    narrow = few_config(wide, GEOMETRY, device.key)
    assert narrow is not None and isinstance(known, CudaAttention)
    other = Counting(device.attention(GEOMETRY, narrow))
    chosen = Chosen(known.library, wide, GEOMETRY, SMS, others={"few": other})
    return type(known)(chosen, device.runtime, device.schedule), other  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("q_lens", "kv_lens", "ran"),
    [([1, 40, 1], [200, 90, 130], 1), ([1, 3, 4], [200, 90, 131], 1), ([8, 5], [200, 90], 0)],
)
def test_few_rows_are_attended_by_the_smaller_tile_and_many_by_the_other(
    device: EmulatedDevice, wide: PodConfig, q_lens: list[int], kv_lens: list[int], ran: int
) -> None:
    attention, other = both(device, wide)
    case = make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=0)
    out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
    attention(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse))
    assert other.ran == ran
    assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("tokens", "ran"), [(1, 1), (4, 1), (5, 0), (None, 0)])
def test_a_captured_call_runs_the_smaller_tile_where_its_plan_has_promised(
    device: EmulatedDevice, wide: PodConfig, tokens: int | None, ran: int
) -> None:
    attention, other = both(device, wide)
    case = make_batch([1, 1, 1], [200, 90, 130], geometry=GEOMETRY, seed=0)
    plan = DevicePlan.reserve([case.batch], torch.device("cpu"), GEOMETRY, config=wide, num_sms=SMS)
    if tokens is not None:
        plan.promise(decode_tokens=tokens)
    plan.update(case.batch)
    out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
    scalars = Scalars(case.q.shape[2] ** -0.5, -1)
    attention(Call(*case, scalars, None, out, lse, plan.held))
    assert other.ran == ran
    assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
    # Records are of what the config names, whoever asks.
    records: Any = torch.zeros(40, 5, dtype=torch.int64)
    attention(Call(*case, scalars, None, out, lse, plan.held, records))
    assert other.ran == ran


def test_a_promise_is_held() -> None:
    config = dataclasses.replace(DEFAULT, decode_split_tokens=64)
    batches = [make_batch([n, 1], [200, 90], geometry=GEOMETRY, seed=0).batch for n in (1, 3, 90)]
    plan = DevicePlan.reserve(batches, torch.device("cpu"), GEOMETRY, config=config, num_sms=SMS)
    plan.promise(decode_tokens=1)
    plan.update(batches[0])
    held = plan.words.clone()
    with pytest.raises(ShapeError, match="has 3 tokens, and the plan was promised at most 1"):
        plan.update(batches[1])
    assert torch.equal(plan.words, held)
    # A prompt is none.
    plan.update(batches[2])


def test_a_promise_comes_once_and_before_any_batch() -> None:
    config = dataclasses.replace(DEFAULT, decode_split_tokens=64)
    batch = make_batch([4, 1], [200, 90], geometry=GEOMETRY, seed=0).batch
    for early in (True, False):
        plan = DevicePlan.reserve(
            [batch], torch.device("cpu"), GEOMETRY, config=config, num_sms=SMS
        )
        if early:
            plan.promise(decode_tokens=4)
        else:
            plan.update(batch)
        held = plan.held
        with pytest.raises(ShapeError, match="promise comes once, before the first update"):
            plan.promise(decode_tokens=1)
        assert plan.held == held


@pytest.mark.parametrize("watched", [False, True])
def test_a_promise_reaches_the_device_whoever_watches(
    monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    seen: list[Call] = []
    monkeypatch.setattr(CpuDevice, "attend", lambda self, call, config: seen.append(call))
    case = make_batch([1, 1], [200, 90], geometry=GEOMETRY, seed=0)
    plan = DevicePlan.reserve(
        [case.batch], torch.device("cpu"), GEOMETRY, config=DEFAULT, num_sms=SMS
    )
    plan.promise(decode_tokens=1)
    plan.update(case.batch)
    with torch.set_grad_enabled(watched):
        hybrid_attention(*case, plan=plan)
    (call,) = seen
    assert call.plan is not None and call.plan.few_rows


@pytest.mark.parametrize("window", [2**31 - 1, 2**40, 2**62])
def test_any_window_is_weighed(window: int) -> None:
    wide = dataclasses.replace(LLAMA, window_left=window)
    q, kv = np.array([4, 1], np.int32), np.array([300, 40000], np.int32)
    assert kind_of(q, kv, wide, ["few"]) == kind_of(q, kv, LLAMA, ["few"]) == "few"


def test_words_of_a_plan_are_the_same_for_both_tiles() -> None:
    config = dataclasses.replace(DEFAULT, decode_split_tokens=64)
    batch = make_batch([1, 2, 90, 1], [200, 90, 300, 700], geometry=LLAMA, seed=0).batch
    narrow = few_config(config, LLAMA, H200)
    words = [
        DevicePlan.reserve([batch], torch.device("cpu"), LLAMA, config=each, num_sms=SMS).plan(
            batch
        )
        for each in (config, narrow)
    ]
    assert torch.equal(*words)
