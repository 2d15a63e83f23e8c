"""Keys print in one canonical form and read back to the same value."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cpu.processor import num_threads
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import KernelUnavailableError, SettingsError, ShapeError
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

powers = st.integers(0, 24).map(lambda n: 1 << n)
sides = st.one_of(st.just((0, 0)), st.tuples(powers, powers))


@hypothesis.given(sides, sides)
def test_bucket_reads_back_what_it_prints(
    prefill: tuple[int, int], decode: tuple[int, int]
) -> None:
    bucket = Bucket(
        prefill_tokens=prefill[0],
        prefill_context=prefill[1],
        decodes=decode[0],
        decode_context=decode[1],
    )
    assert Bucket.parse(str(bucket)) == bucket


@hypothesis.given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 9000)), max_size=20))
def test_bucket_of_any_batch_is_canonical(requests: list[tuple[int, int]]) -> None:
    bucket = Bucket.of([q for q, _ in requests], [q + kv for q, kv in requests])
    assert Bucket.parse(str(bucket)) == bucket


def test_bucket_counts_single_tokens_as_decodes_and_ignores_padding() -> None:
    bucket = Bucket.of([512, 1, 1, 0, 1], [8000, 4000, 4100, 99, 4200])
    assert str(bucket) == "p512@8k+d4@4k"
    assert bucket.is_hybrid
    assert not Bucket.of([1], [5]).is_hybrid


@pytest.mark.parametrize("text", ["", "p3@8", "p1024@1k", "d1k", "p1k@8k+", "+d1@1", "p1k@8k d1@1"])
def test_malformed_bucket_is_rejected(text: str) -> None:
    with pytest.raises(ShapeError, match="bucket"):
        Bucket.parse(text)


def test_bucket_distance_is_doublings_and_infinite_across_sides() -> None:
    one, other = Bucket.parse("p1k@8k+d64@4k"), Bucket.parse("p2k@8k+d16@4k")
    assert one.distance(other) == 3.0
    assert one.distance(one) == 0.0
    assert one.distance(Bucket.parse("p1k@8k")) == math.inf


@hypothesis.given(
    st.integers(1, 128),
    st.integers(1, 128),
    st.sampled_from(["fp32", "bf16", "fp16"]),
    st.booleans(),
    st.integers(-1, 10000),
    st.sampled_from([0.0, 30.0, 50.0, 12.5]),
)
def test_geometry_reads_back_what_it_prints(
    hq: int, hkv: int, dtype: str, quantised: bool, window: int, cap: float
) -> None:
    geometry = Geometry(
        num_q_heads=hq,
        num_kv_heads=hkv,
        head_dim=64,
        dtype=dtype,  # type: ignore[arg-type]
        kv_dtype="e4m3" if quantised else dtype,  # type: ignore[arg-type]
        page_size=16,
        window_left=window,
        logit_cap=cap,
    )
    assert Geometry.parse(str(geometry)) == geometry


@pytest.mark.parametrize(
    "text", ["", "q8kv4d64", "q8kv4d64-fp8-kvfp8-s1-w-1-c0", "q8kv4d64-e4m3-kve4m3-s1-w-1-c0"]
)
def test_malformed_geometry_is_rejected(text: str) -> None:
    with pytest.raises(ShapeError, match="geometry"):
        Geometry.parse(text)


def test_this_machines_key_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    key = device_of(torch.device("cpu")).key
    assert DeviceKey.parse(str(key)) == key
    assert key.units == num_threads()
    assert device_of(torch.device("cpu")).key_of(7).units == 7
    monkeypatch.setenv("POD_ATTN_THREADS", "5")
    monkeypatch.setenv("POD_ATTN_ISA", "portable")
    forced = device_of(torch.device("cpu")).key
    assert (forced.capability, forced.units) == ("portable", 5)


def test_device_without_kernel_has_no_key() -> None:
    with pytest.raises(KernelUnavailableError, match="one for NVIDIA GPUs and one for CPUs"):
        device_of(torch.device("mps"))


def test_instruction_set_beyond_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pod_integrate.devices.cpu.processor._best_isa", lambda: "portable")
    monkeypatch.setattr("pod_integrate.devices.cpu.processor._isa", _uncached_isa())
    monkeypatch.setenv("POD_ATTN_ISA", "avx2")
    with pytest.raises(SettingsError, match="this CPU offers portable at most"):
        device_of(torch.device("cpu"))


def _uncached_isa() -> object:
    from pod_integrate.devices.cpu import processor

    return processor._isa.__wrapped__


@pytest.mark.parametrize("text", ["", "a:b", "a:b:c", "Upper:avx2:2", "a b:avx2:2"])
def test_malformed_device_is_rejected(text: str) -> None:
    with pytest.raises(ShapeError, match="device"):
        DeviceKey.parse(text)
