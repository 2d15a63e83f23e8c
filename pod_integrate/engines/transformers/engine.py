"""Config tables and step log of the layers, one LayerGroups per device of the process."""

from __future__ import annotations

import os
import socket
import threading
import uuid

import torch

from pod_integrate import op
from pod_integrate.arguments import default_scale, plain
from pod_integrate.devices.call import Attention, Result
from pod_integrate.devices.clock import Mark
from pod_integrate.devices.registry import device_of
from pod_integrate.live.groups import LayerGroups
from pod_integrate.live.layer_group import StepPlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.geometry import Numbers, make_geometry, numbers_of
from pod_integrate.terms.scalars import Scalars

_groups: dict[torch.device, LayerGroups] = {}
_lock = threading.Lock()


class Options:
    """What a layer asks for beside its tensors; `window` is in tokens, the row's own included."""

    __slots__ = ("cap", "scale", "sinks", "window")

    def __init__(
        self,
        scale: float | None,
        window: int | None,
        cap: float | None,
        sinks: torch.Tensor | None,
    ) -> None:
        self.scale = scale
        self.window = window
        self.cap = cap
        self.sinks = None if sinks is None else sinks.float().reshape(-1)


def groups_on(device: torch.device) -> LayerGroups:
    """The groups of a device, made at its first use."""
    found = _groups.get(device)
    if found is None:
        with _lock:
            found = _groups.get(device)
            if found is None:
                found = _groups[device] = LayerGroups(
                    device_of(device), server=_server_name(device), reports=_rank() == 0
                )
    return found


def attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    options: Options,
    plans: dict[Numbers, StepPlan],
    *,
    live: bool = True,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """One layer of one step: its group's config, one call of the op, its time."""
    window = -1 if options.window is None else options.window - 1
    scale = default_scale(q.shape[-1]) if options.scale is None else options.scale
    scalars = plain(Scalars(scale, window, options.cap or 0.0))
    # By plain numbers: a step's layers ask once each, and a Geometry takes long to hash.
    numbers = numbers_of(q, k_cache, scalars.window_left, scalars.logit_cap)
    plan = plans.get(numbers)
    if plan is None:
        group = groups_on(q.device).get(make_geometry(numbers))
        plan = plans[numbers] = group.plan(batch, live=live)

    def call(attention: Attention, instead: torch.Tensor | None) -> Result:
        return op.attend(
            *(attention, q, k_cache, v_cache, batch, scalars),
            sinks=options.sinks,
            out=out if instead is None else instead,
        )

    return plan.run(0, call).out


def start_step(device: torch.device) -> Mark:
    """The beginning of a step, for `end_step`."""
    return groups_on(device).clock.start()


def end_step(device: torch.device, mark: Mark) -> None:
    """File the open steps of a device as one that began at `mark`."""
    groups_on(device).end_step(mark)


def close() -> None:
    """File what is open and end the exchanges with the tuner."""
    with _lock:
        while _groups:
            _, groups = _groups.popitem()
            groups.end_step(groups.clock.start())
            groups.close()


def _rank() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0


def _server_name(device: torch.device) -> str:
    host = socket.gethostname()[:64]
    return f"{host}:transformers/{device}/{os.getpid()}-{uuid.uuid4().hex[:8]}"
