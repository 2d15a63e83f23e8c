"""The model against published comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pod_integrate.model.agreement import pod, sweep
from pod_integrate.model.agreement.check import Agreement


def all_checks() -> Iterator[Agreement]:
    """Run every check, in the order of the documents; about a minute in all."""
    groups: tuple[Callable[[], Iterator[Agreement]], ...] = (
        pod.wave_quantization,
        pod.split_limit,
        pod.residency,
        pod.ratio,
        pod.decode_tile,
        sweep.pod_over_serial,
        sweep.flashinfer,
    )
    for group in groups:
        yield from group()
