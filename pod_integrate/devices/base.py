"""What differs between the devices that the op runs on, behind one set of names.

A Target is known by its key alone and may be in another machine: the tuner makes configs for it. A
Device is here: it holds tensors, builds kernels, runs and times them. Nothing outside of this
folder asks what kind a device is.
"""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch

from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.clock import Clock
from pod_integrate.devices.timer import Timer
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import Numbers, make_geometry, numbers_in
from pod_integrate.terms.keys import DeviceKey, Geometry


class Range(NamedTuple):
    """Integers worth trying, both ends included."""

    low: int
    high: int


class OneOf(NamedTuple):
    """Names worth trying."""

    names: tuple[str, ...]


class Choices(NamedTuple):
    """A device's search space as plain data.

    parameters  by name, in the order in which they are drawn; see tuner/search/space.py
    first       (why, config) worth trying before any search, the likeliest first
    shipped     names of the tiles that run without a compiler; None: all
    ratioless   names of the tiles whose CTAs run both ops at once: with them a ratio does nothing
    covered     names of the tiles that batches run by themselves where they pay: read, not drawn
    """

    parameters: Mapping[str, Range | OneOf]
    first: tuple[tuple[str, PodConfig], ...]
    shipped: frozenset[str] | None = None
    ratioless: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()


class Limits(NamedTuple):
    """What a kernel takes; None is no limit.

    dtypes, head_dims  of q and of the caches; the first dtype is what a message proposes
    list_entries       of page_indices
    cache_bytes        of one layer's keys
    """

    dtypes: tuple[torch.dtype, ...]
    head_dims: tuple[int, ...]
    list_entries: int | None = None
    cache_bytes: int | None = None


class Target(abc.ABC):
    """A device as far as its key tells.

    unit  what `key.units` counts
    """

    key: DeviceKey
    unit: Literal["core", "SM"]

    @abc.abstractmethod
    def default_config(self, geometry: Geometry) -> PodConfig:
        """A good config before anything was tuned; always feasible.

        Raises DtypeError or ShapeError for a dtype or head dim that the kernel does not take.
        """

    @abc.abstractmethod
    def require_feasible(self, config: PodConfig, geometry: Geometry) -> None:
        """Raise ConfigInfeasibleError with the arithmetic when `config` does not fit.

        Other errors as default_config.
        """

    @abc.abstractmethod
    def choices(self, geometry: Geometry) -> Choices:
        """What is worth trying with this geometry."""

    @abc.abstractmethod
    def can_measure(self, traced: DeviceKey) -> bool:
        """Whether times taken here are valid for `traced`."""


class Device(abc.ABC):
    """A device of this process.

    place         where tensors of a call live
    limits        what its kernel takes
    runs_triton   whether torch can run Triton kernels there
    has_graphs    whether steps can be captured into graphs
    buffer_bytes  of different K/V, beyond which nothing is left in its caches
    """

    place: torch.device
    limits: Limits
    runs_triton: bool
    has_graphs: bool
    buffer_bytes: int

    def __init__(self) -> None:
        self._found = functools.lru_cache(maxsize=4096)(self._make)

    @property
    @abc.abstractmethod
    def target(self) -> Target:
        """What configs are made for, as this process would use the device now."""

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """Of a GPU that other kernels of CUDA run on too, else None."""
        return None

    @property
    @abc.abstractmethod
    def kernel_build(self) -> str:
        """Identity of the kernel that runs here; results are filed under it."""

    @property
    def key(self) -> DeviceKey:
        """As the op would use it now."""
        return self.target.key

    def default_config(self, geometry: Geometry) -> PodConfig:
        """As Target.default_config."""
        return self.target.default_config(geometry)

    def require_feasible(self, config: PodConfig, geometry: Geometry) -> None:
        """As Target.require_feasible."""
        self.target.require_feasible(config, geometry)

    def choices(self, geometry: Geometry) -> Choices:
        """As Target.choices."""
        return self.target.choices(geometry)

    def key_of(self, units: int | None = None) -> DeviceKey:
        """With so many units, default all; raises ConfigError where that is no choice."""
        key = self.key
        if units not in (None, key.units):
            raise ConfigError(
                f"{key} always runs on all of its {self.target.unit}s, not on {units}"
            )
        return key

    @abc.abstractmethod
    def load(self) -> None:
        """Build or load what calls of every geometry need; raises BuildError."""

    @abc.abstractmethod
    def build(self, geometry: Geometry, config: PodConfig) -> None:
        """Compile what `attention` loads, from any thread: nothing on the device is touched.

        Raises as `attention`.
        """

    @abc.abstractmethod
    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Attention:
        """Make what `attention` returns."""

    def attention(self, geometry: Geometry, config: PodConfig | None = None) -> Attention:
        """What runs a geometry with a config (default default_config), built if need be.

        The second call finds it. Raises ConfigInfeasibleError, DtypeError, ShapeError,
        KernelUnavailableError or BuildError.
        """
        return self._found(config, numbers_in(geometry))

    def attend(self, call: Call, config: PodConfig | None = None) -> None:
        """`call` with the attention of its geometry and `config`."""
        self._found(config, call.numbers())(call)

    def _make(self, config: PodConfig | None, numbers: Numbers) -> Attention:
        return self._attention(make_geometry(numbers), config)

    @abc.abstractmethod
    def clock(self) -> Clock:
        """A clock for one serving thread."""

    @abc.abstractmethod
    def timer(self) -> Timer:
        """What a bench times calls with."""

    @abc.abstractmethod
    def upload(self, values: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """One-dimensional tensor at `place`, ordered on its current stream, without a wait."""

    @property
    def can_compile(self) -> bool:
        """Whether `build` can make what was not built before."""
        return True

    def landing(self) -> torch.Tensor:
        """One float32 on the host, which a copy from the device reaches without a wait."""
        return torch.zeros(1)

    def background(self) -> AbstractContextManager[None]:
        """Calls of this thread run beside those of others, also while they capture graphs.

        What was queued in the context has ended when it is left.
        """
        return contextlib.nullcontext()

    def spare_bytes(self) -> int | None:
        """Memory for tensors that nobody has taken yet; None where nothing runs out of it."""
        return None

    def with_units(self, units: int) -> AbstractContextManager[None]:
        """Run the op with so many units (threads); errors as key_of."""
        self.key_of(units)
        return contextlib.nullcontext()
