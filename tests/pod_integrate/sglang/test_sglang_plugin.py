"""Entry points: what they import, and when the CPU platform may be active."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pod_integrate.engines.sglang import accelerators, plugin
from pod_integrate.errors import UnsupportedFeatureError

NO_ACCELERATOR = accelerators.find_accelerator() is None


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SGLANG_PLATFORM", "SGLANG_PLUGINS", "SGLANG_USE_CPU_ENGINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cpu_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_accelerator", lambda: None)


@pytest.fixture
def gpu_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_accelerator", lambda: "/dev/nvidia0")


def test_plugin_module_imports_neither_torch_nor_sglang() -> None:
    code = (
        "import sys, pod_integrate.engines.sglang.plugin;"
        "print([m for m in ('torch', 'sglang', 'httpx', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("cpu_host")
def test_cpu_platform_is_active_on_a_host_without_accelerator() -> None:
    assert plugin.activate_cpu_platform() == plugin.PLATFORM_CLASS


@pytest.mark.usefixtures("gpu_host")
def test_cpu_platform_leaves_a_gpu_host_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert plugin.activate_cpu_platform() is None
    assert "/dev/nvidia0" in caplog.text
    assert "SGLANG_PLATFORM=pod_cpu" in caplog.text


@pytest.mark.usefixtures("gpu_host")
def test_cpu_platform_can_be_forced_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLATFORM", "pod_cpu")
    assert plugin.activate_cpu_platform() == plugin.PLATFORM_CLASS


@pytest.mark.usefixtures("cpu_host")
def test_cpu_platform_gives_way_to_sglangs_own_cpu_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    assert plugin.activate_cpu_platform() is None


@pytest.mark.usefixtures("cpu_host")
def test_cpu_platform_gives_way_to_another_platform_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [SimpleNamespace(name="pod_cpu"), SimpleNamespace(name="npu_x")]
    monkeypatch.setattr(plugin, "entry_points", lambda group: points)
    assert plugin.activate_cpu_platform() is None
    monkeypatch.setenv("SGLANG_PLUGINS", "pod,pod_cpu")
    assert plugin.activate_cpu_platform() == plugin.PLATFORM_CLASS


@pytest.fixture
def old_sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SGLang before platforms could say that they have no Triton."""
    from sglang.srt.server_args import ServerArgs  # noqa: F401

    monkeypatch.setitem(sys.modules, "sglang.srt.platforms.interface", SimpleNamespace())
    monkeypatch.setattr(plugin, "version", lambda name: "0.5.17")


@pytest.mark.usefixtures("cpu_host", "old_sglang")
def test_cpu_platform_in_an_old_sglang_stays_off_and_forced_names_the_version(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert plugin.activate_cpu_platform() is None
    assert "needs SGLang 0.5.22 or newer, this is 0.5.17" in caplog.text
    monkeypatch.setenv("SGLANG_PLATFORM", "pod_cpu")
    with pytest.raises(UnsupportedFeatureError, match="needs SGLang 0.5.22 or newer"):
        plugin.activate_cpu_platform()


@pytest.fixture
def check_arguments(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The hook that `register` puts before ServerArgs on a machine without an accelerator."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    hooks: list[Any] = []
    monkeypatch.setattr(HookRegistry, "register", lambda *args: hooks.append(args))
    monkeypatch.setattr(plugin, "find_accelerator", lambda: "/dev/nvidia0")
    plugin.register()
    assert hooks == []
    monkeypatch.setattr(plugin, "find_accelerator", lambda: None)
    plugin.register()
    ((target, hook, kind),) = hooks
    assert (target, kind.name) == ("sglang.srt.server_args.ServerArgs.__post_init__", "BEFORE")
    return lambda **arguments: hook(SimpleNamespace(**arguments))


NAMES = ("attention_backend", "prefill_attention_backend", "decode_attention_backend")


@pytest.mark.parametrize("name", NAMES)
def test_old_sglang_on_a_cpu_stops_where_pod_is_asked_for_and_nowhere_else(
    check_arguments: Callable[..., None], old_sglang: None, name: str
) -> None:
    check_arguments(**{name: "triton"})
    with pytest.raises(UnsupportedFeatureError, match="pip install 'sglang>=0.5.22'"):
        check_arguments(**{name: "pod"})


def test_deterministic_inference_on_a_cpu_stops_and_says_why(
    check_arguments: Callable[..., None],
) -> None:
    check_arguments(attention_backend="pod")
    check_arguments(attention_backend="triton", enable_deterministic_inference=True)
    with pytest.raises(UnsupportedFeatureError, match="Triton.*drop --enable-deterministic"):
        check_arguments(attention_backend="pod", enable_deterministic_inference=True)


def test_deterministic_inference_takes_pod_and_turns_the_prefix_cache_off() -> None:
    from sglang.srt.server_args import DETERMINISTIC_ATTENTION_BACKEND_CHOICES as CHOICES
    from sglang.srt.server_args import RADIX_SUPPORTED_DETERMINISTIC_ATTENTION_BACKEND as WITH_RADIX

    plugin.register()
    assert CHOICES.count("pod") == 1 and "pod" not in WITH_RADIX


@pytest.mark.parametrize("module", accelerators.TORCH_MODULES)
def test_every_torch_accelerator_counts(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "DEVICE_NODES", ())
    fake = SimpleNamespace(is_available=lambda: True)
    for name in accelerators.TORCH_MODULES:
        monkeypatch.setattr(torch, name, fake if name == module else None, raising=False)
    assert accelerators.find_accelerator() == f"torch.{module}"


def test_gpu_with_a_broken_driver_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(accelerators, "DEVICE_NODES", (f"{tmp_path}/nvidia[0-9]*",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    open(f"{tmp_path}/nvidia0", "w").close()
    assert accelerators.find_accelerator() == f"{tmp_path}/nvidia0"


@pytest.mark.skipif(not NO_ACCELERATOR, reason="this host has an accelerator")
def test_sglang_resolves_our_platform_here_and_cuda_where_cuda_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sglang.srt import platforms

    from pod_integrate.engines.sglang.platform import PodCpuPlatform

    ours = platforms._resolve_platform()
    assert isinstance(ours, PodCpuPlatform)
    assert ours.is_out_of_tree() and ours.device_type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert type(platforms._resolve_platform()).__name__ == "CudaSRTPlatform"


def test_register_adds_the_backend_name_once() -> None:
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
    from sglang.srt.server_args import ATTENTION_BACKEND_CHOICES

    plugin.register()
    plugin.register()
    assert ATTENTION_BACKEND_CHOICES.count("pod") == 1
    assert "pod" in ATTENTION_BACKENDS


@pytest.mark.usefixtures("cpu_host")
def test_whitelist_without_the_platform_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", "pod")
    plugin.register()
    assert "SGLANG_PLUGINS=pod,pod_cpu" in caplog.text
