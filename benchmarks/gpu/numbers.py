"""Times of the published cases: ours in every strategy, peers, and the distance to the floor.

Cold L2, CUDA events, medians. Work is done in the order of its value: first the default config and
the peers on all cases, then other configs. Every measurement is saved at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import torch

from pod_integrate.config import STRATEGIES, PodConfig
from pod_integrate.testing.batches import Case

from . import machine as machine_report
from . import peers
from .backends import Backend, backend
from .ceilings import ceilings
from .numbers_cases import CaseSpec, cases, default_of, make_case
from .numbers_summary import floors, line, summarize
from .output import Output, add_output
from .sweep_space import few
from .timing import Timer

_TEXT = 500


class Numbers:
    """The document under way: a list of runs by case."""

    def __init__(self, machine: Backend, output: Output, timer: Timer, until: float) -> None:
        self.machine, self.timer = machine, timer
        self._output, self._until = output, until
        self.document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}}
        self.document["timing"] = {"repeats": timer.repeats, "l2": "flushed by reads"}
        self.document["ceilings"] = ceilings(machine, timer)
        self.save()

    @property
    def out_of_time(self) -> bool:
        """Whether no further measurement should start."""
        return time.monotonic() > self._until

    def case(self, spec: CaseSpec) -> dict[str, Any]:
        """The entry of a case, made at its first use."""
        made = {
            "geometry": str(spec.geometry),
            "prefill": f"{spec.chunk}@{spec.context}",
            "decodes": f"{spec.decodes}@{spec.decode_context}",
            "floor": floors(spec, self.document["ceilings"]),
            "runs": [],
        }
        entry: dict[str, Any] = self.document["cases"].setdefault(spec.name, made)
        return entry

    def measure(
        self,
        spec: CaseSpec,
        name: str,
        make: Callable[[], Callable[[], object]],
        notes: dict[str, Any],
    ) -> None:
        """Time one thing; `make` may add to `notes`. What goes wrong is recorded in its place."""
        if self.out_of_time:
            return
        run: dict[str, Any] = {"name": name}
        try:
            run.update(self.timer.time(make())._asdict())
        except Exception as error:
            run["error"] = f"{type(error).__name__}: {error}"[:_TEXT]
        self.case(spec)["runs"].append({**run, **notes})
        self.save()

    def save(self) -> None:
        """Write everything so far."""
        self.document["summary"] = summarize(self.document["cases"])
        self._output.save(self.document)


def first_pass(numbers: Numbers, spec: CaseSpec, others: list[peers.Peer]) -> None:
    """The default config in every strategy, and the peers."""
    machine, case = numbers.machine, make_case(spec, numbers.machine.device)
    base = default_of(machine, spec)
    for strategy in STRATEGIES:
        config = dataclasses.replace(base, strategy=strategy)  # type: ignore[arg-type]
        ours(numbers, spec, case, config, "default")
    want = machine.attend(case, base).out
    for peer in others:
        notes: dict[str, Any] = {"part": peer.part}
        make = functools.partial(_checked, peer, case, spec, want, notes)
        numbers.measure(spec, peer.name, make, notes)
    numbers.case(spec)["clocks"] = machine_report.clocks()
    numbers.save()


def _checked(
    peer: peers.Peer, case: Case, spec: CaseSpec, want: torch.Tensor, notes: dict[str, Any]
) -> Callable[[], object]:
    call = peer.make(case, spec)
    notes["difference"] = peers.difference(call(), want, peer.part, spec)
    return call


def second_pass(numbers: Numbers, spec: CaseSpec) -> None:
    """Other configs, each in serial too, so that fused has the best serial to beat; streams."""
    machine, case = numbers.machine, make_case(spec, numbers.machine.device)
    base = default_of(machine, spec)
    configs = few(machine.arch, spec.head_dim)
    if machine.name == "emulator":
        configs = configs[:2]
    for config in configs:
        if config != base:
            ours(numbers, spec, case, config, "tried")
    for config in dict.fromkeys(map(_in_turn, configs)):
        ours(numbers, spec, case, config, "tried")
    runs = [run for run in numbers.case(spec)["runs"] if run.get("strategy") == "serial"]
    timed = [run for run in runs if "median_us" in run]
    if timed:
        best = PodConfig.from_dict(min(timed, key=lambda run: float(run["median_us"]))["config"])
        ours(numbers, spec, case, dataclasses.replace(best, strategy="streams"), "tried")


def _in_turn(config: PodConfig) -> PodConfig:
    """The same in two launches, where the CTA ratio has no meaning."""
    return dataclasses.replace(config, prefill_ctas=0, decode_ctas=0, strategy="serial")


def ours(numbers: Numbers, spec: CaseSpec, case: Case, config: PodConfig, label: str) -> None:
    """Time one config."""
    numbers.measure(
        spec,
        f"ours {config.strategy} {label}",
        lambda: lambda: numbers.machine.attend(case, config),
        {
            "part": "all",
            "strategy": config.strategy,
            "label": label,
            "config": config.to_dict(),
            "short": config.short(),
        },
    )


def run(numbers: Numbers, wanted: list[CaseSpec], others: list[peers.Peer]) -> None:
    """Both passes; a case that fails as a whole is recorded and the next one follows."""
    passes: tuple[Callable[[CaseSpec], None], ...] = (
        lambda spec: first_pass(numbers, spec, others),
        lambda spec: second_pass(numbers, spec),
    )
    for number, work in enumerate(passes):
        for spec in wanted:
            if numbers.out_of_time:
                break
            try:
                work(spec)
            except Exception as error:
                numbers.case(spec)["error"] = f"{type(error).__name__}: {error}"[:_TEXT]
                numbers.save()
            if numbers.machine.name == "cuda":
                torch.cuda.empty_cache()
            print(f"pass {number + 1}: {line(spec.name, numbers.case(spec))}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print one line per case and pass, save numbers.json."""
    parser = argparse.ArgumentParser(prog="numbers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="start nothing after these")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--grid", action="store_true", help="also a sample of the paper's sweep")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    add_output(parser)
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.seconds
    chosen = backend(options.backend)
    timer = Timer(chosen, options.repeats)
    numbers = Numbers(chosen, Output(options.out, "numbers"), timer, until)
    wanted = cases(chosen, grid=options.grid, only=options.only)
    with torch.inference_mode():
        run(numbers, wanted, peers.usable(options.out))
    for name, value in numbers.document["summary"].items():
        if name != "by_case":
            print(f"{name}: {value}")
