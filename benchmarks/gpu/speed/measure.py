"""Times of one case after the other, saved as they come; what both kinds of cases share."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.ceilings import ceilings
from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.common.output import Output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.peers import peers
from benchmarks.gpu.speed.cases import Part, default_of, make_case
from benchmarks.gpu.speed.summary import floors, line
from pod_integrate.measure.batches import Case
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import PodConfig

_TEXT = 500
_SAVE_SECONDS = 2.0
# A document of hundreds of cases takes most of a second to save.
_SAVE_SHARE = 0.05
Entries = dict[str, dict[str, Any]]


class Numbers:
    """The document under way: a list of runs by case."""

    def __init__(
        self,
        machine: Backend,
        output: Output,
        timer: ColdTimer,
        until: float,
        summarize: Callable[[Entries], dict[str, Any]],
    ) -> None:
        self.machine, self.timer = machine, timer
        self._output, self._until, self._summarize = output, until, summarize
        self._save_after = 0.0
        self.document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}}
        self.document["timing"] = {"repeats": timer.repeats, "l2": "flushed by reads"}
        self.document["ceilings"] = ceilings(machine, timer)
        self.save(now=True)

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
        if self.out_of_time():
            return
        run: dict[str, Any] = {"name": name}
        try:
            run.update(self.timer.time(make())._asdict())
        except Exception as error:
            run["error"] = f"{type(error).__name__}: {error}"[:_TEXT]
        self.case(spec)["runs"].append({**run, **notes})
        self.save()

    def save(self, *, now: bool = False) -> None:
        """Write everything so far, unless that was done just now and need not be `now`.

        Every two seconds, or so seldom that saving takes a twentieth of the time.
        """
        began = time.monotonic()
        if not now and began < self._save_after:
            return
        self.document["summary"] = self._summarize(self.document["cases"])
        self._output.save(self.document)
        ended = time.monotonic()
        self._save_after = ended + max(_SAVE_SECONDS, (ended - began) / _SAVE_SHARE)


def others(numbers: Numbers, spec: CaseSpec, case: Case, tried: list[peers.Peer]) -> None:
    """Time peers, each checked against our default config's answer."""
    want = numbers.machine.attend(case, default_of(numbers.machine, spec)).out
    for peer in tried:
        notes: dict[str, Any] = {"part": peer.part}
        make = functools.partial(_checked, peer, case, spec, want, notes)
        numbers.measure(spec, peer.name, make, notes)


def _checked(
    peer: peers.Peer, case: Case, spec: CaseSpec, want: torch.Tensor, notes: dict[str, Any]
) -> Callable[[], object]:
    call = peer.make(case, spec)
    notes["difference"] = peers.difference(call(), want, peer.part, spec)
    return call


def in_turn(config: PodConfig) -> PodConfig:
    """The same in two launches, where the CTA ratio has no meaning."""
    return dataclasses.replace(config, prefill_ctas=0, decode_ctas=0, strategy="serial")


def ours(
    numbers: Numbers,
    spec: CaseSpec,
    case: Case,
    config: PodConfig,
    label: str,
    part: Part = "all",
) -> None:
    """Time one config on a case, or on `part` of its requests."""
    numbers.measure(
        spec,
        f"ours {config.strategy if part == 'all' else part} {label}",
        lambda: lambda: numbers.machine.attend(case, config),
        {
            "part": part,
            # Of a part there is no strategy to choose.
            **({"strategy": config.strategy} if part == "all" else {}),
            "label": label,
            "config": config.to_dict(),
            "short": config.short(),
        },
    )


def alone(
    numbers: Numbers, spec: CaseSpec, config: PodConfig, part: Part, *, label: str = "alone"
) -> None:
    """Time one op of a case without the other."""
    case = make_case(spec, numbers.machine.device, part)
    ours(numbers, spec, case, config, label, part)


# One step of the work on a case.
Pass = Callable[[Numbers, CaseSpec], None]


def run(numbers: Numbers, wanted: Iterable[CaseSpec], passes: list[Pass]) -> None:
    """All passes; a case that fails as a whole is recorded and the next one follows."""
    for number, work in enumerate(passes):
        for spec in wanted:
            if numbers.out_of_time():
                break
            try:
                work(numbers, spec)
            except Exception as error:
                numbers.case(spec)["error"] = f"{type(error).__name__}: {error}"[:_TEXT]
                numbers.save()
            if not numbers.machine.tiny:
                torch.cuda.empty_cache()
            if numbers.out_of_time():
                numbers.case(spec)["cut"] = f"time was over in pass {number + 1}"
                numbers.save()
            print(f"pass {number + 1}: {line(spec.name, numbers.case(spec))}", flush=True)
    numbers.save(now=True)
