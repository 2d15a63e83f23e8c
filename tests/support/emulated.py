"""A small GPU for tests: the CUDA kernel's launch path on emulated SMs."""

from __future__ import annotations

import dataclasses

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.terms.keys import Geometry

SMS = 2
VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
CONFIG = dataclasses.replace(VARIANT.config(), decode_split_tokens=64)
GEOMETRY = Geometry.uniform((4, 2, 64), "bf16")


def emulated_gpu() -> EmulatedDevice:
    """Of SMS SMs; its default is CONFIG, whose variant most tests share."""
    return EmulatedDevice(Schedule(num_sms=SMS), default=CONFIG)
