"""Measuring one task: a Bench verifies a candidate and times it against a baseline."""

from __future__ import annotations

import abc
import functools
import itertools
import math
import time
from collections.abc import Callable

import torch

from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig
from pod_integrate.errors import PodAttentionError
from pod_integrate.keys import Geometry
from pod_integrate.testing.batches import Case, make_batch
from pod_integrate.testing.reference import attention_reference
from pod_integrate.testing.timing import interleaved_pairs
from tuner.model import Lengths, Pair

# |out - reference| and |lse - reference| allowed, relative to 1 + |reference|. Unit-normal
# inputs; half types round probabilities and the result, fp32 only differs in summation order.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
# Rows are sampled for the reference until they cost this many multiply-adds.
VERIFY_BUDGET = 2e8
# A timed call shorter than this is repeated: below it the clock and the caller matter.
MIN_TIMED_SECONDS = 1e-3
MAX_BUFFER_BYTES = 256 << 20


class MismatchError(PodAttentionError, AssertionError):
    """A config computes something else than the reference: a bug of the kernel."""


class Bench(abc.ABC):
    """Runs configs on one geometry's batches. Implementations: the real op, recorded times."""

    @abc.abstractmethod
    def verify(self, config: PodConfig, geometry: Geometry, lengths: Lengths, seed: int) -> None:
        """Check `config` on fresh random inputs of these lengths.

        Raises MismatchError, or any other PodAttentionError that the op raises.
        """

    @abc.abstractmethod
    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: Lengths,
        *, count: int, seconds: float, layers: int, seed: int,
    ) -> list[Pair]:  # fmt: skip
        """Up to `count` interleaved pairs in about `seconds`, at least one."""


class OpBench(Bench):
    """The real op in this process.

    Calls rotate through as many K/V caches as the traced model has layers (within
    MAX_BUFFER_BYTES): a server's layers do not find their keys in the cache either.
    """

    def verify(self, config: PodConfig, geometry: Geometry, lengths: Lengths, seed: int) -> None:
        case = make_batch(lengths.q_lens, lengths.kv_lens, geometry=geometry, seed=seed)
        out, lse = _run(case, config, geometry)
        rows, batch = _sampled_rows(case.batch, geometry, seed)
        expected = attention_reference(
            case.q[rows], case.k_cache, case.v_cache, batch,
            scale=None, window_left=geometry.window_left, logit_cap=geometry.logit_cap,
        )  # fmt: skip
        for name, got, want in (("out", out[rows], expected.out), ("lse", lse[rows], expected.lse)):
            # Rows without a visible key: lse is -inf on both sides.
            same = (got == want) | (
                (got - want).abs() <= TOLERANCE[geometry.dtype] * (1 + want.abs())
            )
            if not bool(same.all()):
                wrong = int((~same).sum())
                raise MismatchError(
                    f"{name} differs from the float64 reference in {wrong} of {same.numel()} "
                    f"values (largest error {_largest(got - want):.3g}, allowed "
                    f"{TOLERANCE[geometry.dtype]:g} of 1 + |value|) with {config.short()} on "
                    f"q_lens {lengths.q_lens[:16]} kv_lens {lengths.kv_lens[:16]}, seed {seed}"
                )

    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: Lengths,
        *, count: int, seconds: float, layers: int, seed: int,
    ) -> list[Pair]:  # fmt: skip
        cases = itertools.cycle(_layers(geometry, lengths, layers, seed))
        started = time.perf_counter()
        _run(next(cases), baseline, geometry)
        once = time.perf_counter() - started
        repeats = max(1, math.ceil(MIN_TIMED_SECONDS / once))

        def side(config: PodConfig) -> Callable[[], None]:
            def calls() -> None:
                for _ in range(repeats):
                    _run(next(cases), config, geometry)

            return calls

        timed = interleaved_pairs(
            side(baseline), side(candidate), pairs=count, warmup=1, budget_s=seconds
        )
        scale = 1e6 / repeats
        return [
            Pair(a * scale, b * scale, lengths.digest)
            for a, b in zip(timed.first, timed.second, strict=True)
        ]


def _run(case: Case, config: PodConfig, geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    # Here, because importing the op builds or loads the kernel: a tuner without workers needs none.
    from pod_integrate.op import hybrid_attention

    out, lse = hybrid_attention(
        case.q, case.k_cache, case.v_cache, case.batch,
        config=config, window_left=geometry.window_left, logit_cap=geometry.logit_cap,
    )  # fmt: skip
    return out, lse


@functools.lru_cache(maxsize=4)
def _cached_layers(
    geometry: Geometry, q: tuple[int, ...], kv: tuple[int, ...], layers: int, seed: int
) -> list[Case]:
    first = make_batch(q, kv, geometry=geometry, seed=seed, fill_unused=0.0)
    cases = [first]
    size = 2 * first.k_cache.numel() * first.k_cache.element_size()
    for _ in range(min(layers, MAX_BUFFER_BYTES // max(1, size)) - 1):
        cases.append(first._replace(k_cache=first.k_cache.clone(), v_cache=first.v_cache.clone()))
    return cases


def _layers(geometry: Geometry, lengths: Lengths, layers: int, seed: int) -> list[Case]:
    return _cached_layers(geometry, tuple(lengths.q_lens), tuple(lengths.kv_lens), layers, 0 * seed)


def _largest(errors: torch.Tensor) -> float:
    return float(errors.abs().nan_to_num(math.inf).max())


def _sampled_rows(
    batch: HybridBatch, geometry: Geometry, seed: int
) -> tuple[torch.Tensor, HybridBatch]:
    """Some query rows, and the batch in which each of them is a request of its own.

    Row i of a chunk sees what a single-row request with that kv_len sees, so any subset can be
    checked alone. First and last rows of each request come first: masks fail there.
    """
    q_lens, kv_lens = batch.lengths
    places = [(b, i) for b, n in enumerate(q_lens) for i in range(n)]
    indptr = batch.q_indptr.tolist()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    edges = [r for r, (b, i) in enumerate(places) if i in (0, q_lens[b] - 1)]
    chosen: dict[int, int] = {}
    cost = 0.0
    for row in [*edges, *order]:
        if cost > VERIFY_BUDGET:
            break
        b, i = places[row]
        chosen[row] = kv_lens[b] - q_lens[b] + i + 1
        cost += chosen[row] * geometry.num_q_heads * geometry.head_dim * 2
    rows = sorted(chosen)
    starts = batch.page_starts.tolist()
    single = HybridBatch.build(
        [1] * len(rows),
        [chosen[row] for row in rows],
        page_indices=batch.page_indices,
        page_starts=[starts[places[row][0]] for row in rows],
        page_size=batch.page_size,
    )
    assert all(indptr[places[row][0]] + places[row][1] == row for row in rows)
    return torch.tensor(rows), single
