"""The model against published comparisons.

Each check names its source and its criterion; both were written before the model was first run on
it. No constant of the model is fitted to any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Check(NamedTuple):
    """One published comparison.

    published  what the source says
    criterion  when the model counts as agreeing
    model      what the model says
    """

    name: str
    source: str
    published: str
    criterion: str
    model: str
    agrees: bool


def within(value: float, low: float, high: float) -> bool:
    """Whether low <= value <= high."""
    return low <= value <= high


def percent(ratio: float) -> str:
    """Ratio 1.17 as `+17 %`."""
    return f"{100 * (ratio - 1):+.0f} %"


def all_checks() -> Iterator[Check]:
    """Run every check, in the order of the documents; about a minute in all."""
    from pod_integrate.model import agreement_pod, agreement_sweep

    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        agreement_pod.wave_quantization,
        agreement_pod.split_limit,
        agreement_pod.residency,
        agreement_pod.ratio,
        agreement_pod.decode_tile,
        agreement_sweep.pod_over_serial,
        agreement_sweep.flashinfer,
    )
    for group in groups:
        yield from group()
