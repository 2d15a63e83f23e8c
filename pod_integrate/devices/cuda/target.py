"""What a GPU runs by default, what it cannot do, and what is worth trying; see limits."""

from __future__ import annotations

from pod_integrate.devices.base import Choices, Target
from pod_integrate.devices.cuda import choices, limits
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry


class CudaTarget(Target):
    """An NVIDIA GPU."""

    unit = "SM"

    def __init__(self, key: DeviceKey) -> None:
        self.key = key

    def default_config(self, geometry: Geometry) -> PodConfig:
        """As Target; KernelUnavailableError when the GPU has no compiled target."""
        chosen = limits.default_config(self.key, geometry)
        Variant.of(chosen, geometry)
        return chosen

    def require_feasible(self, config: PodConfig, geometry: Geometry) -> None:
        """Tiles divide, shared memory and registers suffice; see limits.require_fits."""
        Variant.of(config, geometry)
        limits.require_feasible(config, self.key, geometry)

    def choices(self, geometry: Geometry) -> Choices:
        """The tiles of `choices.TILES`: free combinations would hardly ever fit an SM."""
        return choices.choices(self, geometry)

    def can_measure(self, traced: DeviceKey) -> bool:
        """Only its own key."""
        return self.key == traced
