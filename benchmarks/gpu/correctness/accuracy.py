"""The op on a device within the law of accuracy: to 128K keys, logits from -1e6 to 1e6.

Every case that the kernel's dtypes and head dims allow, with the default tiles of its head dim; the
long and the extreme ones once more at head dim 128, whose prefill is another on wgmma.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.accuracy.accuracy_cases import LONG, AccuracyCase, all_cases, extreme_cases
from benchmarks.accuracy.accuracy_law import Judgement, judge
from benchmarks.gpu.common.machines import Backend
from pod_integrate.devices.cuda import variants
from pod_integrate.devices.cuda.limits import HEAD_DIMS, Architecture, default_tiles
from pod_integrate.measure.batches import Case
from pod_integrate.op import Result
from pod_integrate.terms.config import PodConfig

_WGMMA_DIM = 128
# The emulated SM tries every twelfth of the short ones.
_EMULATED_KEYS, _EMULATED_STEP = 1024, 12
_WORST = 10


def accuracy_cases() -> list[AccuracyCase]:
    """Cases of head dim 64 and of the features' others, then the former at head dim 128."""
    cases = all_cases(dtypes=variants.DTYPES, head_dims=HEAD_DIMS)
    extreme = {case.name for case in extreme_cases()}
    again = (c for c in cases if c.head_dim == 64 and (c.keys == LONG or c.name in extreme))
    return [*cases, *(dataclasses.replace(c, head_dim=_WGMMA_DIM) for c in again)]


def config_of(case: AccuracyCase, arch: Architecture) -> PodConfig:
    """The default tiles, and splits as the case wants them."""
    quarter = -(-case.keys // 64) * 16
    return dataclasses.replace(
        default_tiles(arch, case.head_dim),
        max_prefill_waves=1 if case.split else 0,
        decode_split_tokens=min(quarter, 2048) if case.split else 0,
    )


class AccuracyChecks:
    """The cases as checks, and what they found."""

    def __init__(self, machine: Backend) -> None:
        self._machine = machine
        self._found: list[tuple[AccuracyCase, Judgement]] = []
        cases = accuracy_cases()
        if machine.tiny:
            short = [c for c in cases if c.keys <= _EMULATED_KEYS and c.head_dim == 64]
            cases = short[::_EMULATED_STEP]
        self._cases = cases

    def __iter__(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """(name, check) of each; a check raises when the answer is outside of the law."""
        for case in self._cases:
            yield f"accuracy | {case.name}", lambda case=case: self._judge(case)  # type: ignore[misc]

    def document(self) -> dict[str, Any]:
        """Counts, and the largest errors: LSE in ulp, all else over what the law allows."""
        long = [verdict.lse_ulp for case, verdict in self._found if case.keys == LONG]
        verdicts = [verdict for _, verdict in self._found]
        return {
            "cases": len(verdicts),
            "within": sum(verdict.holds for verdict in verdicts),
            "lse_error_ulp_max": max((verdict.lse_ulp for verdict in verdicts), default=None),
            "lse_error_ulp_max_128k": max(long, default=None),
            "worst_out": _worst(verdicts, "out"),
            "worst_lse": _worst(verdicts, "lse"),
        }

    def _judge(self, case: AccuracyCase) -> None:
        def attend(case: AccuracyCase, inputs: Case) -> Result:
            config = config_of(case, self._machine.arch)
            features = case.features(self._machine.device)
            return self._machine.attend(inputs, config, **features)

        verdict = judge(case, attend, device=self._machine.device, rounded_weights=True)
        self._found.append((case, verdict))
        assert verdict.holds, f"errors over what the law allows: {verdict._asdict()}"


def _worst(verdicts: list[Judgement], field: str) -> dict[str, float]:
    largest = sorted(verdicts, key=lambda verdict: -getattr(verdict, field))[:_WORST]
    return {verdict.case: getattr(verdict, field) for verdict in largest}
