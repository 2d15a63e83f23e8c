"""The CPU as an SGLang platform, so that a stock server runs where there is no accelerator."""

from __future__ import annotations

from typing import Any

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


class PodCpuPlatform(CpuDeviceMixin, SRTPlatform):  # type: ignore[misc]
    """Out-of-tree platform without graphs or Triton; SGLang then runs its plain torch code.

    It has to call itself out-of-tree: only then does SGLang skip kernels that its CUDA wheels
    lack on a CPU (rotary embedding among them).
    """

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"

    def get_default_attention_backend(self) -> str:
        """Name used when the operator names none."""
        return "torch_native"

    def is_pin_memory_available(self, device: Any = None) -> bool:
        """Always False: pinning speeds up copies to an accelerator only."""
        return False
