"""A GPU that nobody has: it takes a model's time for everything, and computes nothing."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence

import torch

from pod_integrate.devices.base import Device, Limits
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.clock import Clock, Into, Mark, WallClock
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.timer import Timer
from pod_integrate.live.builds import Builds
from pod_integrate.live.readiness import Readiness
from pod_integrate.live.verify import Lengths
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
LAYERS = 8
GAIN = 0.08
# As seen on an H200: nvcc for one variant; loading it and comparing its answers.
COMPILE_SECONDS, VERIFY_SECONDS = 5.0, 0.2
_GOOD_SPLIT, _GOOD_TILES = 4, 3
_NOISE = 0.01
_BUILDS = 4


class HandClock(WallClock):
    """Time is what `now` says."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def start(self) -> Mark:
        return self._now()

    def stop(self, mark: Mark, into: Into) -> None:
        into(self._now() - mark)


class _Nothing(Attention):
    def __call__(self, call: Call) -> None:
        raise NotImplementedError(f"{call.batch} is only timed here")


class SimulatedGpu(Device):
    """An H200 by its key; `wait` lets seconds of its server's life pass for a build.

    built  tiles that need no compiler any more
    """

    place = torch.device("cpu")
    limits = Limits((torch.bfloat16,), (128,))
    runs_triton, has_graphs, buffer_bytes = False, True, 0
    target = CudaTarget(DeviceKey("nvidia-h200", "sm90", 132))
    kernel_build = "simulated"

    def __init__(self, now: Callable[[], float], wait: Callable[[float], None]) -> None:
        super().__init__()
        self.now, self.wait = now, wait
        self.built = {tiles_name(self.default_config(GEOMETRY))}

    def load(self) -> None:
        """Nothing is needed."""

    def build(self, geometry: Geometry, config: PodConfig) -> None:
        self.require_feasible(config, geometry)
        tiles = tiles_name(config)
        if tiles not in self.built:
            self.wait(COMPILE_SECONDS)
            self.built.add(tiles)

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Attention:
        return _Nothing(geometry, config or self.default_config(geometry))

    def clock(self) -> Clock:
        return HandClock(self.now)

    def timer(self) -> Timer:
        raise NotImplementedError("nothing is timed beside the server")

    def upload(self, values: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)


class SimulatedBuilds(Builds):
    """A few compilers at a time; what they do is over when its time has come."""

    def __init__(self, gpu: SimulatedGpu, wake: Callable[[], None]) -> None:
        super().__init__(lambda config: gpu.build(GEOMETRY, config), wake)
        self._gpu = gpu
        self._ends: dict[str, float] = {}

    def is_built(self, config: PodConfig) -> bool:
        self._gpu.require_feasible(config, GEOMETRY)
        tiles = tiles_name(config)
        if tiles not in self._gpu.built and tiles not in self._ends and len(self._ends) < _BUILDS:
            self._ends[tiles] = self._gpu.now() + COMPILE_SECONDS
        return tiles in self._gpu.built

    def go_on(self) -> None:
        """Time has passed."""
        for tiles, end in list(self._ends.items()):
            if end <= self._gpu.now():
                del self._ends[tiles]
                self._gpu.built.add(tiles)
                self._wake()


class SimulatedReadiness(Readiness):
    """Verification takes its time and finds nothing."""

    def _verify(self, config: PodConfig, lengths: Lengths) -> None:
        assert isinstance(self._device, SimulatedGpu), config
        self._device.wait(VERIFY_SECONDS if lengths else 0.0)


class Truth:
    """How fast configs really are.

    Of steps with a prefill some tiles are GAIN faster than the default and all others slower; of
    decodes another KV split is. What does not matter for a kind of step does nothing there.
    """

    def __init__(self, default: PodConfig, seed: int) -> None:
        self._default, self._random = default, random.Random(seed)

    def gain(self, config: PodConfig, bucket: Bucket) -> float:
        """Logarithm of the speed-up over the default, in the mean over steps."""
        mine, default = config, self._default
        found = 0.0
        if tiles_name(mine) != tiles_name(default):
            found += self._drawn(f"{tiles_name(mine)}", _GOOD_TILES if bucket.prefill_tokens else 0)
        if bucket.decodes and mine.decode_split_tokens != default.decode_split_tokens:
            split = str(mine.decode_split_tokens)
            found += self._drawn(split, 0 if bucket.prefill_tokens else _GOOD_SPLIT)
        if bucket.is_hybrid:
            found -= 0.01 * abs(math.log2(max(1, mine.prefill_ctas) / max(1, mine.decode_ctas)))
            found -= 0.05 * (mine.strategy != default.strategy)
        return found

    def seconds(self, config: PodConfig, lengths: Lengths, bucket: Bucket) -> float:
        """One layer's, with the noise of a measurement."""
        decodes = sum(n for q, n in zip(*lengths, strict=True) if q == 1)
        prefill = sum(q * n for q, n in zip(*lengths, strict=True) if q > 1)
        plain = 10e-6 + decodes / 1e9 + prefill * 4 * 32 * 128 / 5e14
        return plain * math.exp(self._random.gauss(0.0, _NOISE) - self.gain(config, bucket))

    def _drawn(self, name: str, one_in: int) -> float:
        """Of something unlike the default: good for one name of `one_in`, else a loss."""
        draw = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest())
        if one_in and draw % one_in == 0:
            return math.log1p(GAIN)
        return -0.02 - 0.2 * ((draw >> 8) % 1000) / 1000
