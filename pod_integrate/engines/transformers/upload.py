"""Host integers to the device of a step, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pod_integrate.devices.registry import device_of


def upload(
    values: Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """One-dimensional tensor on `device`, ordered on its current stream."""
    return device_of(device).upload(values, dtype)
