"""What a config must show before a step may meet it: the default's answers on this device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import emulated

from pod_integrate.devices.base import Device
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cpu.device import CpuDevice, this_cpu
from pod_integrate.devices.registry import standing_in
from pod_integrate.errors import MismatchError
from pod_integrate.live import verify
from pod_integrate.live.verify import FLOOR_BYTES, LEAST_BYTES, NoRoomError, fresh_case
from pod_integrate.measure.batches import Case
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Dtype, Geometry

GEOMETRY = Geometry(
    num_q_heads=8, num_kv_heads=4, head_dim=64, dtype="fp32", kv_dtype="fp32", page_size=16
)
LENGTHS = ([40, 1, 1], [100, 333, 7])


class Broken(CpuDevice):
    """Runs every config but the default wrong."""

    def __init__(self, spoil: Callable[[Call], None], spare: int | None = None) -> None:
        super().__init__(this_cpu().level)
        self._spoil, self._spare = spoil, spare

    def attention(self, geometry: Geometry, config: PodConfig | None = None) -> Attention:
        found = super().attention(geometry, config)
        return found if config is None else _Spoiled(found, self._spoil)

    def spare_bytes(self) -> int | None:
        return self._spare


class _Spoiled(Attention):
    def __init__(self, inner: Attention, spoil: Callable[[Call], None]) -> None:
        super().__init__(inner.geometry, inner.config)
        self._inner, self._spoil = inner, spoil

    def __call__(self, call: Call) -> None:
        self._inner(call)
        self._spoil(call)


def other(device: Device, geometry: Geometry) -> PodConfig:
    return dataclasses.replace(device.default_config(geometry), decode_split_tokens=64)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("window", "cap"), [(-1, 0.0), (20, 0.0), (-1, 2.0)])
def test_a_correct_config_passes_in_every_dtype(dtype: Dtype, window: int, cap: float) -> None:
    geometry = dataclasses.replace(
        GEOMETRY, dtype=dtype, kv_dtype=dtype, window_left=window, logit_cap=cap
    )
    for seed in range(3):
        config = other(this_cpu(), geometry)
        verify.verify(this_cpu(), geometry, config, LENGTHS, seed=seed)


def test_a_correct_config_passes_on_an_emulated_gpu() -> None:
    device = emulated.emulated_gpu()
    config = dataclasses.replace(emulated.CONFIG, decode_split_tokens=32)
    with standing_in(device):
        verify.verify(device, emulated.GEOMETRY, config, ([9, 1], [30, 90]), seed=0)


def shifted(call: Call) -> None:
    call.out[3, 2, 5] += 3e-5


def unwritten(call: Call) -> None:
    call.out[-1].fill_(float("nan"))


def wrong_lse(call: Call) -> None:
    call.lse[0, 0] += 1e-4


@pytest.mark.parametrize(
    ("spoil", "words"), [(shifted, r"out\[3, 2, 5\]"), (unwritten, "nan"), (wrong_lse, r"lse\[0")]
)
def test_a_wrong_answer_is_a_mismatch_that_names_config_and_place(
    spoil: Callable[[Call], None], words: str
) -> None:
    device = Broken(spoil)
    config = other(device, GEOMETRY)
    with pytest.raises(MismatchError, match=words) as raised:
        verify.verify(device, GEOMETRY, config, LENGTHS, seed=1)
    assert config.short() in str(raised.value) and "q_lens [40, 1, 1]" in str(raised.value)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_one_key_of_hundreds_left_out_is_a_mismatch_in_half_types(dtype: Dtype) -> None:
    geometry = dataclasses.replace(GEOMETRY, dtype=dtype, kv_dtype=dtype)

    def forget(call: Call) -> None:
        short = call.batch.kv_lens.clone()
        short[1] -= 1
        batch = dataclasses.replace(call.batch, kv_lens=short)
        this_cpu().attention(geometry)(call._replace(batch=batch))

    device = Broken(forget)
    with pytest.raises(MismatchError):
        verify.verify(device, geometry, other(device, geometry), LENGTHS, seed=1)


def test_without_room_nothing_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Broken(shifted, spare=LEAST_BYTES - 1)
    monkeypatch.setattr(verify, "fresh_case", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(NoRoomError, match="383 MiB"):
        verify.verify(device, GEOMETRY, other(device, GEOMETRY), LENGTHS, seed=1)


def test_with_little_room_a_config_is_verified_on_smaller_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Case] = []
    fresh = verify.fresh_case

    def noted(*args: Any, **kwargs: Any) -> Case:
        made.append(fresh(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(verify, "fresh_case", noted)
    lengths = ([1900], [1900])
    for spare in (FLOOR_BYTES, FLOOR_BYTES - 1):
        device = Broken(lambda _: None, spare=spare)
        verify.verify(device, GEOMETRY, other(device, GEOMETRY), lengths, seed=1)
    assert [len(case.q) for case in made] == [1900, 512]


def test_inputs_are_bounded_whatever_the_step_was() -> None:
    geometry = dataclasses.replace(GEOMETRY, num_kv_heads=8, head_dim=128)
    case = fresh_case(
        geometry, ([8192, 1, 1, 300], [1 << 20, 1 << 20, 5, 300]), device=this_cpu(), seed=0
    )
    q_lens, kv_lens = case.batch.lengths
    assert case.k_cache.nbytes <= 65 << 20 and sum(q_lens) <= 2050
    assert q_lens[1:3] == [1, 1] and q_lens[0] > 1900 and q_lens[3] > 1
    assert kv_lens[2:] == [5, 300] and all(q <= kv for q, kv in zip(q_lens, kv_lens, strict=True))


def test_seeds_make_different_inputs_of_one_batch() -> None:
    first, second = (fresh_case(GEOMETRY, LENGTHS, device=this_cpu(), seed=s) for s in (1, 2))
    assert first.batch.lengths == second.batch.lengths == (list(LENGTHS[0]), list(LENGTHS[1]))
    assert not torch.equal(first.q, second.q)
    assert not torch.equal(first.batch.page_indices, second.batch.page_indices)
