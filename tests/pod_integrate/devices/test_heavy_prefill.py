"""Batches whose prefill outweighs their decodes: what runs them, in place of their config."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.emulated import CONFIG, GEOMETRY, SMS, emulated_gpu

from pod_integrate.builds import nvcc
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cuda import heavy_prefill
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.cuda.heavy_prefill import heavy_config
from pod_integrate.devices.cuda.limits import (
    ARCHITECTURES,
    Architecture,
    default_tiles,
    pair_tiles,
    require_fits,
)
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import BuildError
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.scalars import Scalars

H200, H100 = (DeviceKey(name, "sm90", 132) for name in ("nvidia-h200", "nvidia-h100-80gb-hbm3"))


def test_a_device_builds_what_it_can_and_fails_only_without_the_config_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    geometry, missing = Geometry.uniform((32, 8, 128), "bf16"), [""]

    def build(variant: Variant, arch: Architecture) -> Path:
        if missing[0] in variant.name:
            raise BuildError(f"{variant.name} is not built for {arch.name}")
        return Path(variant.name)

    monkeypatch.setattr(nvcc, "build", build)
    device = object.__new__(CudaDevice)
    device.__dict__["target"] = CudaTarget(H200)
    default = default_tiles(ARCHITECTURES["sm_90a"], 128)
    with pytest.raises(BuildError, match="d16x192.* is not built"):
        device.build(geometry, default)
    assert not caplog.messages
    for missing[0], what in (("s2w8", "heavy in prefill"), ("d8x192", "whose decodes have few")):
        caplog.clear()
        device.build(geometry, default)
        assert len(caplog.messages) == 1 and f"batches {what}" in caplog.text
    missing[0] = "nothing"
    caplog.clear()
    device.build(geometry, default)
    assert not caplog.messages


def test_only_open_configs_of_the_defaults_tiles_have_one() -> None:
    geometry = Geometry.uniform((32, 8, 128), "bf16")
    default = default_tiles(ARCHITECTURES["sm_90a"], 128)
    found = heavy_config(default, geometry, H200)
    assert found is not None and found.ctas_per_sm == 1
    assert found.decode_split_tokens == default.decode_split_tokens
    assert heavy_config(default, geometry, H100) is None
    for changes in (
        {"strategy": "serial"}, {"prefill_ctas": 1, "decode_ctas": 1}, {"ctas_per_sm": 1},
    ):  # fmt: skip
        assert heavy_config(dataclasses.replace(default, **changes), geometry, H200) is None
    # The same bits in any batch, so the same kernel.
    assert heavy_config(default.batch_invariant(), geometry, H200) is None
    unsplit = dataclasses.replace(default, decode_split_tokens=0)
    assert heavy_config(unsplit.batch_invariant(), geometry, H200) is None
    wide = dataclasses.replace(geometry, head_dim=256)
    assert heavy_config(default_tiles(ARCHITECTURES["sm_90a"], 256), wide, H200) is None
    for head_dim in (64, 128):
        require_fits(pair_tiles(head_dim), ARCHITECTURES["sm_90a"], head_dim)


def test_a_pair_answers_for_the_default_on_the_emulated_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_small_ones(monkeypatch)
    device = emulated_gpu()
    pair = device.attention(GEOMETRY, pair_tiles(GEOMETRY.head_dim))
    known = device.attention(GEOMETRY, CONFIG)
    assert isinstance(known, CudaAttention) and isinstance(pair, CudaAttention)
    chosen = Chosen(known.library, CONFIG, GEOMETRY, SMS, others={"heavy": pair})
    attention = type(known)(chosen, device.runtime, device.schedule)  # type: ignore[call-arg]
    case = make_batch([90, 1, 70], [200, 30, 180], geometry=GEOMETRY, seed=0)
    outs = []
    for each in (attention, pair, known):
        out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
        each(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse))
        assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
        outs.append(out)
    assert torch.equal(outs[0], outs[1])


def count_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if batches that the emulated SM attends were not small."""
    monkeypatch.setattr(heavy_prefill, "LEAST_FLOP", 1e6)
    monkeypatch.setattr(
        heavy_prefill, "FEW_BYTES", dict.fromkeys(heavy_prefill.FLOP_PER_BYTE, -1.0)
    )


class Other(Attention):
    """Answers by the reference and counts the requests of each call."""

    def __init__(self, geometry: Geometry, config: PodConfig) -> None:
        super().__init__(geometry, config)
        self.ran: list[int] = []

    def __call__(self, call: Call) -> None:
        self.ran.append(len(call.batch.kv_lens))
        answer = attention_reference(call.q, call.k_cache, call.v_cache, call.batch)
        call.out.copy_(answer.out)


def test_a_heavy_batch_runs_with_the_other_config_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_small_ones(monkeypatch)
    device = emulated_gpu()
    known = device.attention(GEOMETRY, CONFIG)
    assert isinstance(known, CudaAttention)
    other = Other(GEOMETRY, CONFIG)
    chosen = Chosen(known.library, CONFIG, GEOMETRY, SMS, others={"heavy": other})
    attention = type(known)(chosen, device.runtime, device.schedule)  # type: ignore[call-arg]

    def ran(q_lens: list[int], kv_lens: list[int], **more: Any) -> list[int]:
        """Requests of the batches that the other config ran; what was attended is right."""
        case = make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=0)
        other.ran.clear()
        out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
        for _ in range(2):
            attention(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse, **more))
        assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
        return list(other.ran)

    assert ran([90, 1], [200, 30]) == [2, 2]
    assert ran([90, 1, 1], [200, 900, 900]) == [] and ran([1, 1], [30, 40]) == []
    records = torch.zeros(40, 5, dtype=torch.int64)
    assert ran([90, 1], [200, 30], records=records) == []
