"""Measuring one task: a Bench verifies a candidate and times it against a baseline."""

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from pod_integrate.devices.base import Device
from pod_integrate.devices.registry import device_named
from pod_integrate.errors import PodAttentionError
from pod_integrate.measure.accuracy import TOLERANCE
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.measure.timing import interleaved_pairs
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry
from tuner.messages import Pair, StepLengths

# Rows are sampled for the reference until they are so many or cost so many multiply-adds; all
# rows are compared with the default config's answer, which costs nothing.
VERIFY_ROWS, VERIFY_BUDGET = 32, 3e7
# A timed call shorter than this is repeated: below it the clock and the caller matter.
MIN_TIMED_SECONDS = 1e-3
# Each side of a pair is the fastest of some interleaved calls, as many as fit this time: other
# processes only ever add time, and on a busy machine they add a multiple of a short call.
PAIR_SECONDS, MAX_CALLS = 0.03, 4


class MismatchError(PodAttentionError, AssertionError):
    """A config computes something else than the reference: a bug of the kernel."""


class Bench(abc.ABC):
    """Runs configs on one geometry's batches. Implementations: the real op, recorded times."""

    @abc.abstractmethod
    def verify(
        self, config: PodConfig, geometry: Geometry, lengths: StepLengths, seed: int
    ) -> None:
        """Check `config` on fresh random inputs of these lengths.

        Raises MismatchError, or any other PodAttentionError that the op raises.
        """

    @abc.abstractmethod
    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: StepLengths,
        *, count: int, seconds: float, layers: int,
    ) -> list[Pair]:  # fmt: skip
        """Up to `count` interleaved pairs in about `seconds`, at least one."""

    # Recorded times know no units.
    def with_units(self, units: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Measure with so many units (threads), where the device has a choice."""
        return contextlib.nullcontext()


class OpBench(Bench):
    """The real op in this process, on `device` (default the CPU).

    Calls rotate through as many K/V caches as the traced model has layers (within the device's
    buffer_bytes): a server's layers do not find their keys in the cache either.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._device = device or device_named("cpu")
        self._timer = self._device.timer()

    def with_units(self, units: int) -> AbstractContextManager[None]:
        return self._device.with_units(units)

    def verify(
        self, config: PodConfig, geometry: Geometry, lengths: StepLengths, seed: int
    ) -> None:
        case = make_batch(
            lengths.q_lens, lengths.kv_lens, geometry=geometry, seed=seed, device=self._device.place
        )
        got = _run(case, config, geometry)
        rows, batch = sampled_rows(case.batch, geometry, seed)
        expected = attention_reference(
            case.q[rows], case.k_cache, case.v_cache, batch,
            scale=None, window_left=geometry.window_left, logit_cap=geometry.logit_cap,
        )  # fmt: skip
        where = f"{config.short()} on q_lens {lengths.q_lens[:16]} kv_lens {lengths.kv_lens[:16]}"
        allowed, default = TOLERANCE[geometry.dtype], _run(case, None, geometry)
        for name, mine, want, other in zip(("out", "lse"), got, expected, default, strict=True):
            _require_close(mine[rows], want, allowed, f"{name} of {where}, seed {seed}")
            text = f"{name} of {where}, seed {seed}, beside the default config's"
            _require_close(mine, other, 2 * allowed, text)

    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: StepLengths,
        *, count: int, seconds: float, layers: int,
    ) -> list[Pair]:  # fmt: skip
        cases = itertools.cycle(_layers(geometry, lengths, layers, self._device))
        once = min(self._timer(lambda: _run(next(cases), baseline, geometry)) for _ in range(3))
        repeats = max(1, math.ceil(MIN_TIMED_SECONDS / once))
        calls = max(1, min(MAX_CALLS, round(PAIR_SECONDS / (once * repeats))))

        def side(config: PodConfig) -> Callable[[], None]:
            def run() -> None:
                for _ in range(repeats):
                    _run(next(cases), config, geometry)

            return run

        first, second = side(baseline), side(candidate)
        second()
        taken: list[Pair] = []
        deadline = time.perf_counter() + seconds
        while len(taken) < count and (not taken or time.perf_counter() < deadline):
            # Swapped every pair, so that neither config always goes first.
            swap = len(taken) % 2 == 1
            sides = (second, first) if swap else (first, second)
            timed = interleaved_pairs(*sides, pairs=calls, warmup=0, timer=self._timer)
            a, b = (min(times) * 1e6 / repeats for times in timed)
            taken.append(Pair(*((b, a) if swap else (a, b)), lengths.digest))
        return taken


def _require_close(got: torch.Tensor, want: torch.Tensor, allowed: float, what: str) -> None:
    # A row without a visible key has lse -inf on both sides.
    same = (got == want) | ((got - want).abs() <= allowed * (1 + want.abs()))
    if not bool(same.all()):
        largest = float((got - want).double().abs().nan_to_num(math.inf)[~same].max())
        raise MismatchError(
            f"{what}: {int((~same).sum())} of {same.numel()} values differ, the largest error is "
            f"{largest:.3g}, allowed is {allowed:g} of 1 + |value|"
        )


def _run(
    case: Case, config: PodConfig | None, geometry: Geometry
) -> tuple[torch.Tensor, torch.Tensor]:
    # Here, because importing the op builds or loads the kernel: a tuner without workers needs none.
    from pod_integrate.op import hybrid_attention

    out, lse = hybrid_attention(
        case.q, case.k_cache, case.v_cache, case.batch,
        config=config, window_left=geometry.window_left, logit_cap=geometry.logit_cap,
    )  # fmt: skip
    return out, lse


def _layers(geometry: Geometry, lengths: StepLengths, layers: int, device: Device) -> list[Case]:
    return _cached_layers(geometry, tuple(lengths.q_lens), tuple(lengths.kv_lens), layers, device)


@functools.lru_cache(maxsize=6)
def _cached_layers(
    geometry: Geometry,
    q_lens: tuple[int, ...],
    kv_lens: tuple[int, ...],
    layers: int,
    device: Device,
) -> list[Case]:
    first = make_batch(
        q_lens, kv_lens, geometry=geometry, seed=0, fill_unused=0.0, device=device.place
    )
    size = 2 * first.k_cache.numel() * first.k_cache.element_size()
    more = min(layers, device.buffer_bytes // max(1, size)) - 1
    return [first] + [
        first._replace(k_cache=first.k_cache.clone(), v_cache=first.v_cache.clone())
        for _ in range(more)
    ]


def sampled_rows(
    batch: HybridBatch, geometry: Geometry, seed: int
) -> tuple[torch.Tensor, HybridBatch]:
    """Some query rows, and the batch in which each of them is a request of its own.

    Row i of a chunk sees what a single-row request with that kv_len sees, so any subset can be
    checked alone. First and last rows of requests come first: masks fail there.
    """
    q_lens, kv_lens = batch.lengths
    starts = batch.page_starts.tolist()
    places = [(b, i) for b, n in enumerate(q_lens) for i in range(n)]
    shuffled = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    edges = [row for row in shuffled if places[row][1] in (0, q_lens[places[row][0]] - 1)]
    chosen: dict[int, int] = {}
    cost = 0.0
    for row in [*edges[: VERIFY_ROWS // 2], *shuffled]:
        if cost > VERIFY_BUDGET or len(chosen) >= VERIFY_ROWS:
            break
        b, i = places[row]
        chosen[row] = kv_lens[b] - q_lens[b] + i + 1
        cost += chosen[row] * geometry.num_q_heads * geometry.head_dim * 2
    single = HybridBatch.build(
        [1] * len(chosen),
        list(chosen.values()),
        page_indices=batch.page_indices,
        page_starts=[starts[places[row][0]] for row in chosen],
        page_size=batch.page_size,
    )
    return torch.tensor(list(chosen), device=batch.page_indices.device), single
