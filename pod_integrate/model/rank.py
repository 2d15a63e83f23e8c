"""Configs by simulated time: first guesses for a study that has not measured anything yet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.model.batches import Lengths
from pod_integrate.model.devices import DEVICES, Device
from pod_integrate.model.simulate import simulate
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry


class Ranked(NamedTuple):
    """A config and its simulated time, us: the geometric mean over the batches."""

    us: float
    config: PodConfig


def rank(
    configs: Sequence[PodConfig],
    batches: Sequence[Lengths],
    geometry: Geometry,
    device: DeviceKey,
) -> list[Ranked]:
    """Fastest first by the model; configs that do not fit the device are left out.

    A device that the model does not know counts as the known one of its compute capability with
    the nearest number of SMs; without one nothing is ranked and the list is empty.
    """
    known = nearest_device(device)
    if known is None or not batches:
        return []
    ranked = [
        Ranked(
            statistics.geometric_mean(simulate(b, geometry, config, known).us for b in batches),
            config,
        )
        for config in configs
        if _fits(config, device, geometry)
    ]
    return sorted(ranked, key=lambda entry: entry.us)


def nearest_device(key: DeviceKey) -> Device | None:
    """The known device that is most like `key`, or None when its generation is unknown."""
    same = [device for device in DEVICES.values() if device.key.capability == key.capability]
    exact = [device for device in same if device.key.name == key.name]
    return min(exact or same, key=lambda d: abs(d.key.units - key.units), default=None)


def _fits(config: PodConfig, device: DeviceKey, geometry: Geometry) -> bool:
    try:
        target_of(device).require_feasible(config, geometry)
    except ConfigInfeasibleError:
        return False
    return True
