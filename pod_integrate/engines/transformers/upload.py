"""Host integers to the device of a step, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def upload(
    values: Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """One-dimensional tensor on `device`, ordered on its current stream."""
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cpu":
        return tensor
    # torch keeps page-locked memory until the copy has run; a pageable source would be waited for.
    return tensor.pin_memory(device).to(device, non_blocking=True)
