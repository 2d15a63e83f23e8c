"""What only a device can show: graphs with changed lengths, streams at once, torch.compile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.gpu.common.machines import Backend, moved
from benchmarks.gpu.profile.corun_records import each_item_once, launch_with_records
from pod_integrate.devices.cuda.limits import default_tiles
from pod_integrate.devices.cuda.timer import HEAD_START_CYCLES, head_start
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.measure.accuracy import assert_matches_reference
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import STRATEGIES, PodConfig
from pod_integrate.terms.keys import Geometry

_GEOMETRY = Geometry.uniform((8, 2, 128), "bf16")
# The first is the largest in every respect.
_STEPS = (
    ((300, 1, 1, 1), (900, 4000, 2100, 65)),
    ((1, 120, 0, 1), (1000, 555, 30, 64)),
    ((1, 1, 1, 1), (1, 2, 63, 3000)),
    ((256, 1, 1, 1), (256, 17, 900, 1)),
)
_ROUNDS = 30


def device_checks(machine: Backend) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, check) of each; a check raises when it fails."""
    base = dataclasses.replace(default_tiles(machine.arch, 128), decode_split_tokens=512)
    for strategy in STRATEGIES:
        config = dataclasses.replace(base, strategy=strategy)  # type: ignore[arg-type]
        yield f"graph replay, changed lengths | {strategy}", _bind(_graph, machine, config)
        yield f"two streams at once | {strategy}", _bind(_two_streams, machine, config)
        yield f"each item once | {strategy}", _bind(_records, machine, config)
        yield f"same bits in any batch | {strategy}", _bind(_invariant, machine, config)
    yield "torch.compile, one graph", _bind(_compiled, machine, base)


def _bind(check: Callable[[Backend, PodConfig], None], machine: Backend, config: PodConfig) -> Any:
    return lambda: check(machine, config)


def _case(q_lens: tuple[int, ...], kv_lens: tuple[int, ...], seed: int) -> Case:
    return make_batch(q_lens, kv_lens, geometry=_GEOMETRY, seed=seed)


def _graph(machine: Backend, config: PodConfig) -> None:
    """Capture with the largest batch, then replay every step from the same memory."""
    hosts = [_case(q, kv, seed) for seed, (q, kv) in enumerate(_STEPS)]
    plan = DevicePlan.reserve(
        [case.batch for case in hosts], machine.device, _GEOMETRY, config=config
    )
    step = _GraphStep(machine, hosts, plan)
    step.load(hosts[0])
    side = torch.cuda.Stream(machine.device)
    side.wait_stream(torch.cuda.current_stream(machine.device))
    with torch.cuda.stream(side):
        step.attend()
    torch.cuda.current_stream(machine.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.attend()
    for case in [*hosts, *reversed(hosts)]:
        step.load(case)
        step.out.fill_(float("nan"))
        graph.replay()
        machine.synchronize()
        tokens = case.batch.num_tokens
        got = Result(step.out[:tokens], step.lse[:tokens])
        assert_matches_reference(moved(case, machine.device), got, rounded_weights=True)


class _GraphStep:
    """Tensors at fixed places, large enough for any of the cases."""

    def __init__(self, machine: Backend, hosts: list[Case], plan: DevicePlan) -> None:
        self._plan = plan
        device, like = machine.device, hosts[0]
        heads, dim = like.q.shape[1:]
        pages = max(case.k_cache.shape[0] for case in hosts)
        indices = max(case.batch.page_indices.numel() for case in hosts)
        kv = (pages, *like.k_cache.shape[1:])
        self.q = torch.zeros(plan.max_tokens, heads, dim, dtype=like.q.dtype, device=device)
        self.out = torch.zeros_like(self.q)
        self.k, self.v = (torch.zeros(kv, dtype=like.q.dtype, device=device) for _ in range(2))
        self._indices = torch.zeros(indices, dtype=torch.int32, device=device)
        self._starts = torch.zeros(plan.max_requests, dtype=torch.int64, device=device)
        self._batch = like.batch
        self.lse = torch.empty(0)

    def load(self, case: Case) -> None:
        """Put a case into place, as a server does between two replays."""
        batch = case.batch
        self.q[: len(case.q)].copy_(case.q)
        self.k[: len(case.k_cache)].copy_(case.k_cache)
        self.v[: len(case.v_cache)].copy_(case.v_cache)
        self._indices[: batch.page_indices.numel()].copy_(batch.page_indices)
        self._starts[: batch.page_starts.numel()].copy_(batch.page_starts)
        self._batch = HybridBatch(
            batch.q_indptr, batch.kv_lens, self._indices, self._starts, batch.page_size
        )
        self._plan.update(self._batch)

    def attend(self) -> None:
        _, self.lse = hybrid_attention(
            self.q, self.k, self.v, self._batch, out=self.out, plan=self._plan
        )


def _two_streams(machine: Backend, config: PodConfig) -> None:
    """Two cases in flight together, many times over; each keeps its own answer."""
    cases = [moved(_case(q, kv, seed), machine.device) for seed, (q, kv) in enumerate(_STEPS[:2])]
    device = machine.device
    streams = [torch.cuda.Stream(device) for _ in cases]
    main = torch.cuda.current_stream(device)
    got: list[list[Result]] = [[], []]
    for stream in streams:
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            # Long enough that what both streams have queued behind it overlaps.
            head_start(2 * HEAD_START_CYCLES)
    for _ in range(_ROUNDS):
        for answers, case, stream in zip(got, cases, streams, strict=True):
            with torch.cuda.stream(stream):
                answers.append(hybrid_attention(*case, config=config))
    machine.synchronize()
    for answers, case in zip(got, cases, strict=True):
        assert_matches_reference(case, answers[0], rounded_weights=True)
        for answer in answers[1:]:
            assert torch.equal(answer.out, answers[0].out), "a stream's answers differ"
            assert torch.equal(answer.lse, answers[0].lse), "a stream's lse differ"


def _compiled(machine: Backend, config: PodConfig) -> None:
    """A step with the op inside compiles whole and gives the eager answer."""
    case = moved(_case(*_STEPS[0], seed=5), machine.device)

    def step(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: HybridBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = hybrid_attention(q * 2, k, v, batch, config=config)
        return out + 1, lse

    with torch.inference_mode():
        out, lse = torch.compile(step, fullgraph=True)(*case)
        want, want_lse = step(*case)
    machine.synchronize()
    assert torch.equal(lse, want_lse), "lse of the compiled step differs from eager"
    assert torch.equal(out, want), "out of the compiled step differs from eager"


def _invariant(machine: Backend, config: PodConfig) -> None:
    """A request alone, where an op has a kernel of its own, and beside all others."""
    config = config.batch_invariant()
    for seed, (q_lens, kv_lens) in enumerate(_STEPS):
        case = moved(_case(q_lens, kv_lens, seed), machine.device)
        together, ends = hybrid_attention(*case, config=config), case.batch.q_indptr.tolist()
        for b, (q_len, kv_len) in enumerate(zip(q_lens, kv_lens, strict=True)):
            rows = slice(ends[b], ends[b + 1])
            batch = HybridBatch.build(
                [q_len],
                [kv_len],
                page_indices=case.batch.page_indices,
                page_starts=case.batch.page_starts[b : b + 1],
                page_size=case.batch.page_size,
            )
            alone = hybrid_attention(case.q[rows], *case[1:3], batch, config=config)
            for name in ("out", "lse"):
                if not torch.equal(getattr(alone, name), getattr(together, name)[rows]):
                    raise AssertionError(f"{name} of request {b} of {kv_lens} differs alone")


def _records(machine: Backend, config: PodConfig) -> None:
    """Every item is attended by exactly one CTA."""
    case = moved(_case(*_STEPS[0], seed=6), machine.device)
    each_item_once(launch_with_records(machine, case, config))
