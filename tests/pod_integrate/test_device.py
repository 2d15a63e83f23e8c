"""The DeviceKey of a GPU, and which kernel build its results are filed under."""

from __future__ import annotations

import types

import pytest
import torch

from pod_integrate.builds import native, nvcc
from pod_integrate.devices import registry
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import KernelUnavailableError
from pod_integrate.terms.keys import DeviceKey


@pytest.fixture
def gpu_properties(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """What the driver says of every GPU; an H100 unless the test changes it."""
    properties = types.SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(registry, "_devices", {})
    return properties


def test_gpu_key_names_model_capability_and_sms(gpu_properties: types.SimpleNamespace) -> None:
    key = device_of(torch.device("cuda", 0)).key
    assert str(key) == "nvidia-h100-80gb-hbm3:sm90:132"
    assert DeviceKey.parse(str(key)) == key


def test_gpu_without_a_compiled_target_is_refused(gpu_properties: types.SimpleNamespace) -> None:
    gpu_properties.name, gpu_properties.major, gpu_properties.minor = "Tesla T4", 7, 5
    with pytest.raises(KernelUnavailableError, match="'sm75'"):
        str(device_of(torch.device("cuda", 0)).key)


def test_host_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KernelUnavailableError, match="no NVIDIA GPU here. Install the driver"):
        device_of(torch.device("cuda"))


def test_amd_gpu_that_calls_itself_cuda_is_refused(
    gpu_properties: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.2")
    with pytest.raises(KernelUnavailableError, match="no kernel runs on hip: "):
        device_of(torch.device("cuda", 0))


def test_results_are_filed_under_the_build_that_ran() -> None:
    assert device_of(torch.device("cpu")).kernel_build == native.build_id("cpu")
    assert CudaDevice(torch.device("cuda", 1)).kernel_build == nvcc.build_id()
