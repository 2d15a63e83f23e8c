"""hybrid_attention as torch's dispatcher knows it: torch.ops.pod.hybrid_attention.

Compilers, modes and profilers see this op. Its schema can hold neither a config nor a batch, so
this is the one place where calls are flat: `send` lays one out, `_receive` puts it together again.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from pod_integrate.devices.call import Call, PlanWords
from pod_integrate.devices.registry import device_of
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, flatten_config, unflatten_config
from pod_integrate.terms.scalars import TYPES, Scalars

_SCALARS = len(Scalars._fields)
_SCHEMA = (
    "hybrid_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor q_indptr, Tensor kv_lens, "
    "Tensor page_indices, Tensor page_starts, int page_size, "
    + "".join(
        f"{kind.__name__} {name}, " for name, kind in zip(Scalars._fields, TYPES, strict=True)
    )
    + "Tensor? sinks, int[] config, Tensor(a!) out, Tensor(b!) lse, Tensor? plan=None, "
    "int[] capacity=[], bool few_rows=False) -> ()"
)
_library = torch.library.Library("pod", "DEF")
_library.define(_SCHEMA)


def send(call: Call, config: PodConfig | None) -> None:
    """Run `call` as the torch op; config None is the device's default."""
    batch = call.batch
    _overload(
        *(call.q, call.k_cache, call.v_cache, batch.q_indptr, batch.kv_lens, batch.page_indices),
        *(batch.page_starts, batch.page_size, *call.scalars, call.sinks),
        *([] if config is None else flatten_config(config), call.out, call.lse),
        *_captured(call.plan),
    )


def _captured(plan: PlanWords | None) -> tuple[torch.Tensor | None, list[int], bool]:
    return (None, [], False) if plan is None else (plan.words, list(plan.capacity), plan.few_rows)


def _receive(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    q_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    page_indices: torch.Tensor,
    page_starts: torch.Tensor,
    page_size: int,
    *rest: Any,
) -> None:
    batch = HybridBatch(q_indptr, kv_lens, page_indices, page_starts, page_size)
    # The dispatcher leaves out trailing arguments that have their default.
    sinks, config, out, lse, *captured = rest[_SCALARS:]
    plan = PlanWords(*captured) if captured and captured[0] is not None else None
    scalars = Scalars(*rest[:_SCALARS])
    call = Call(q, k_cache, v_cache, batch, scalars, sinks, out, lse, plan)
    device_of(q).attend(call, _config(tuple(config)))


@functools.lru_cache(maxsize=4096)
def _config(values: tuple[int, ...]) -> PodConfig | None:
    return unflatten_config(values) if values else None


# The overload itself: the packet of overloads would be resolved at each call.
_overload: Any = torch.ops.pod.hybrid_attention.default
for _key in ("CPU", "CUDA"):
    _library.impl("hybrid_attention", _receive, _key)
torch.library.register_fake("pod::hybrid_attention", lambda *_: None, lib=_library)
