"""A model's layers without a model: what an engine does with a StepPlan."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pod_integrate.devices.call import Attention, Result
from pod_integrate.live.layer_group import LayerGroup, StepPlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig

Seconds = Callable[[PodConfig], float]


def run_layers(
    plan: StepPlan,
    layers: int = 2,
    *,
    work: Callable[[Attention], None] = lambda attention: None,
    answer: Callable[[Attention], float] = lambda attention: 1.0,
) -> list[PodConfig]:
    """The configs that ran, in order, shadows included.

    work    what a call takes, e.g. by moving a clock
    answer  value of its out and lse
    """
    ran: list[PodConfig] = []

    def attend(attention: Attention, instead: torch.Tensor | None) -> Result:
        ran.append(attention.config)
        work(attention)
        out = torch.empty(3, 2, 4) if instead is None else instead
        return Result(out.fill_(answer(attention)), torch.full((3, 2), answer(attention)))

    for layer in range(layers):
        plan.run(layer, attend)
    return ran


def prepare(group: LayerGroup) -> None:
    """What the thread of a laboratory does for a group."""
    for config, lengths in group.readiness.wanted():
        group.readiness.prepare(config, lengths)


def make_usable(group: LayerGroup, batch: HybridBatch) -> None:
    """Steps of `batch` until the table's config for it, where there is one, attends them."""
    for _ in range(4):
        run_layers(group.plan(batch, live=True))
        prepare(group)
    group.close_step()
