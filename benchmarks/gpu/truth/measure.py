"""Times of many configs on one step after the other, each beside the default's on the same step."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.common.timing import Call, ColdTimer
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case
from pod_integrate.model.batches import Lengths
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Geometry

# Configs between two calls of the default.
_NEIGHBOURS = 6
_NO_FEATURES: Mapping[str, Any] = MappingProxyType({})


class Measured(NamedTuple):
    """Of some configs on one step: microseconds by config and round, and of the default nearby."""

    candidate: list[list[float]]
    default: list[list[float]]


class Steps:
    """Inputs of a bucket's steps: one pool of random K/V, each step's slots anywhere in it."""

    def __init__(self, machine: Backend, geometry: Geometry, steps: Sequence[Lengths]) -> None:
        self._machine, self._geometry, self._steps = machine, geometry, steps
        device, dtype = machine.device, TORCH_DTYPES[geometry.dtype]
        generator = torch.Generator(device).manual_seed(0)
        size = geometry.page_size
        pages = [[-(-kv // size) for kv in step.kv_lens] for step in steps]
        total = max(sum(each) for each in pages)
        shape = (total, size, geometry.num_kv_heads, geometry.head_dim)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, dtype=dtype, device=device, generator=generator)

        kept = TORCH_DTYPES[geometry.kv_dtype]
        self._caches = normal(*shape).to(kept), normal(*shape).to(kept)
        tokens = [sum(step.q_lens) for step in steps]
        q = normal(max(tokens), geometry.num_q_heads, geometry.head_dim)
        self._q = [q[:count] for count in tokens]
        self._indices = [
            torch.randperm(total, device=device, generator=generator)[: sum(each)].to(torch.int32)
            for each in pages
        ]
        self._starts = [
            torch.tensor([0, *each[:-1]], dtype=torch.int64).cumsum(0).to(device) for each in pages
        ]

    def case(self, number: int) -> Case:
        """A step, its batch new: the plans of the configs tried on it go with it."""
        batch = HybridBatch.build(
            *self._steps[number],
            page_indices=self._indices[number],
            page_starts=self._starts[number],
            page_size=self._geometry.page_size,
        )
        return Case(self._q[number], *self._caches, batch)


def check(
    machine: Backend, case: Case, default: PodConfig, configs: Sequence[PodConfig],
    features: Mapping[str, Any] = _NO_FEATURES,
) -> dict[PodConfig, str]:  # fmt: skip
    """What is wrong with configs that fail or answer something else than the default does.

    features  what else the calls are told, such as window_left
    """
    want, wrong = machine.attend(case, default, **features).out.float(), {}
    for config in configs:
        try:
            found = float((machine.attend(case, config, **features).out.float() - want).abs().max())
        except Exception as error:
            wrong[config] = f"{type(error).__name__}: {error}"[:300]
            continue
        # Not a number is no small difference either.
        if not found < BF16_TOLERANCE:
            wrong[config] = f"differs from the default config's answer by {found}"
    return wrong


def measure(
    timer: ColdTimer,
    machine: Backend,
    case: Case,
    default: PodConfig,
    configs: Sequence[PodConfig],
    rounds: int,
    features: Mapping[str, Any] = _NO_FEATURES,
) -> Measured:
    """Every config once a round, in the other order in every second one.

    The default runs before and after every few of them; what a config is compared with is the mean
    of the two around it. The first call of a round comes after a pause and takes up to twice as
    long: nothing is compared with it. `features` as of `check`.
    """

    def attend(config: PodConfig) -> Call:
        return functools.partial(machine.attend, case, config, **features)

    for config in (default, *configs):
        # Plans it, and loads its kernel.
        machine.attend(case, config, **features)
    result = Measured([[] for _ in configs], [[] for _ in configs])
    for number in range(rounds):
        order = list(range(len(configs)))[:: -1 if number % 2 else 1]
        groups = [order[i : i + _NEIGHBOURS] for i in range(0, len(order), _NEIGHBOURS)]
        calls = [default, default]
        for group in groups:
            calls += [*(configs[i] for i in group), default]
        times = timer.each([attend(call) for call in calls])[1:]
        place = 0
        for group in groups:
            after = place + len(group) + 1
            beside = (times[place] + times[after]) / 2
            for offset, i in enumerate(group, 1):
                result.candidate[i].append(times[place + offset])
                result.default[i].append(beside)
            place = after
    return result


def ratios(measured: Measured, config: int) -> list[int]:
    """Candidate / default of every round, in units of 1e-4."""
    pairs = zip(measured.candidate[config], measured.default[config], strict=True)
    return [round(1e4 * candidate / default) for candidate, default in pairs]
