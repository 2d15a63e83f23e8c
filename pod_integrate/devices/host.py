"""What devices have in common whose calls run on the host and have ended when they return."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pod_integrate.devices.base import Device
from pod_integrate.devices.clock import Clock, WallClock
from pod_integrate.devices.timer import Timer, wall_seconds


class HostDevice(Device):
    """Tensors lie on the CPU, and time is the wall's."""

    place = torch.device("cpu")
    runs_triton = False

    def clock(self) -> Clock:
        return WallClock()

    def timer(self) -> Timer:
        return wall_seconds

    def upload(self, values: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)
