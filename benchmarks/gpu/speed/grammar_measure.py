"""Times of one public batch: every kernel on its op, then the best pair beside the default."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.peers import peers
from benchmarks.gpu.peers.flashinfer import Call
from benchmarks.gpu.peers.paged import Paged
from benchmarks.gpu.speed.batch_spec import GrammarSpec
from benchmarks.gpu.speed.cases import Part, Spec, default_of, make_case, part_of
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case

# Of each kernel before the quickest are known.
_FIRST_REPEATS = 15
_TEXT = 500
OURS, SERIAL = "ours", "ours serial"
_OPS: tuple[Part, ...] = ("prefill", "decode")


def ops(spec: GrammarSpec) -> list[Part]:
    """The ops that a batch has work for."""
    ones = [q_len == 1 for q_len in spec.lengths.q_lens]
    return [op for op, there in zip(_OPS, (not all(ones), any(ones)), strict=True) if there]


def own(machine: Backend, spec: GrammarSpec) -> list[Paged]:
    """Our two launches, and each op alone where a batch has both."""
    default = default_of(machine, spec)
    serial = dataclasses.replace(default, strategy="serial")

    def alone(part: Part) -> Paged:
        def make(case: Case, spec: Spec) -> Call:
            mine = part_of(case, spec, part)
            return lambda: machine.attend(mine, default).out

        return Paged(f"{OURS} {part}", part, make)

    def both(case: Case, _: Spec) -> Call:
        return lambda: machine.attend(case, serial).out

    there = ops(spec)
    parts = [alone(op) for op in there] if len(there) > 1 else []
    return [Paged(SERIAL, "all", both, whole=True), *parts]


def entrants(
    spec: GrammarSpec, case: Case, want: torch.Tensor, tried: Sequence[Paged]
) -> tuple[dict[str, dict[str, Any]], dict[str, Call]]:
    """What each is like, and the calls of those whose answer is ours; the call was made once.

    Where a batch has one op, a kernel for all rows is one for that op.
    """
    there = ops(spec)
    runs: dict[str, dict[str, Any]] = {}
    calls: dict[str, Call] = {}
    for peer in tried:
        alone = len(there) == 1
        if peer.part not in ("all", *there) or (alone and peer.part == "all" and not peer.whole):
            continue
        run: dict[str, Any] = {"part": there[0] if alone else peer.part}
        runs[peer.name] = run
        try:
            call = peer.make(case, spec)
            run["difference"] = peers.difference(call(), want, peer.part, spec)
        except Exception as error:
            run["error"] = f"{type(error).__name__}: {error}"[:_TEXT]
            continue
        if run["difference"] < BF16_TOLERANCE:
            calls[peer.name] = call
        else:
            run["error"] = "another answer than ours"
    return runs, calls


def medians(
    timer: ColdTimer, calls: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """Of each call in us, all of them in turns."""
    times = timer.each(list(calls.values()) * repeats)
    return {
        name: round(statistics.median(times[place :: len(calls)]), 2)
        for place, name in enumerate(calls)
    }


def measure(
    machine: Backend, spec: GrammarSpec, tried: Sequence[Paged], timer: ColdTimer
) -> dict[str, Any]:
    """Of a batch; medians in us, calls in turns.

    first    every kernel: what it answers, its time or its error
    pair     the quickest on each op, our own among them
    single   the quickest single call of another library, where a batch has both ops
    against  by op, the kernels of others that gave our answer
    us       the default config, our two launches, `pair` as two calls, `single`
    """
    case, default = make_case(spec, machine.device), default_of(machine, spec)
    want = machine.attend(case, default).out
    runs, calls = entrants(spec, case, want, [*own(machine, spec), *tried])
    for name, us in medians(timer, calls, _FIRST_REPEATS if not machine.tiny else 1).items():
        runs[name]["us"] = us
    others = [name for name in calls if not name.startswith(OURS)]
    pair = [name for op in ops(spec) for name in _quickest(runs, op, calls)]
    single = _quickest(runs, "all", others)
    final: dict[str, Callable[[], object]] = {
        "default": lambda: machine.attend(case, default),
        "pair": lambda: [calls[name]() for name in pair],
    }
    if SERIAL in calls:
        final["serial"] = calls[SERIAL]
    if single:
        final["single"] = calls[single[0]]
    return {
        "first": runs,
        "pair": pair,
        "single": single,
        "against": {op: [name for name in others if runs[name]["part"] == op] for op in ops(spec)},
        "us": medians(timer, final, timer.repeats),
    }


def _quickest(runs: dict[str, dict[str, Any]], part: Part, among: Iterable[str]) -> list[str]:
    there = [name for name in among if runs[name]["part"] == part]
    return sorted(there, key=lambda name: float(runs[name]["us"]))[:1]
