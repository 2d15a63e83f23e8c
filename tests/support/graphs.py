"""What stands for SGLang's captured decode steps on the emulated GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from pod_integrate.devices.call import Call
from pod_integrate.devices.registry import device_of
from pod_integrate.engines.sglang.graphs import GraphStep
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.terms.scalars import Scalars

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # q, K, V
CONTEXT, SLOTS = 400, 900
# Length of rows that a batch is padded with.
FILL = 1


def slots_table() -> torch.Tensor:
    """SGLang's table: row 0 is padding, the others hold shuffled slots."""
    torch.manual_seed(0)
    rows = [torch.randperm(SLOTS - 1)[:CONTEXT] + 1 for _ in range(7)]
    return torch.stack([torch.zeros(CONTEXT, dtype=torch.int64), *rows]).to(torch.int32)


def forward_batch(kv_lens: list[int], rows: list[int], padding: int = 0) -> Any:
    """A batch of decodes of requests `rows` of the table, as SGLang shows it to a backend."""
    return SimpleNamespace(
        batch_size=len(kv_lens) + padding,
        seq_lens_cpu=torch.tensor(kv_lens + [FILL] * padding),
        req_pool_indices=torch.tensor(rows + [0] * padding),
        num_padding=padding,
    )


def tensors(size: int) -> Inputs:
    """q, k and v of `size` requests in pools of SLOTS."""
    torch.manual_seed(1)
    shapes = ((size, 4, 64), (SLOTS, 1, 2, 64), (SLOTS, 1, 2, 64))
    q, k_cache, v_cache = (torch.randn(shape, dtype=torch.bfloat16) for shape in shapes)
    return q, k_cache, v_cache


def attend(step: GraphStep, group: LayerGroup, tensors: Inputs, position: int = 0) -> torch.Tensor:
    """A captured call of the layer at `position`, with what the step held then."""
    out, lse = torch.full_like(tensors[0], torch.nan), torch.empty(tensors[0].shape[:2])
    scalars = Scalars(tensors[0].shape[2] ** -0.5, group.geometry.window_left)
    plan = step.layers[group].plan.of(position)
    q, k_cache, v_cache = tensors
    call = Call(q, k_cache, v_cache, step.batch, scalars, None, out, lse, plan.held)
    device_of(out).attend(call, plan.config)
    return out
