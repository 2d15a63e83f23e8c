"""Attention backend `pod`: every batch SGLang forms becomes one call of hybrid_attention per layer.

Prefill chunks and running requests of a batch are attended together, whatever SGLang calls the
batch. Lengths are known on the host, so nothing waits for the device.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from pod_integrate import native
from pod_integrate.batch import HybridBatch
from pod_integrate.engines.groups import DTYPES, LayerGroup, LayerGroups, Plan
from pod_integrate.engines.sglang import step_time
from pod_integrate.engines.sglang.checks import (
    check_arguments,
    check_device,
    check_engine,
    check_layers,
)
from pod_integrate.engines.sglang.facts import (
    device_type,
    engine_facts,
    is_reporting_rank,
    layer_facts,
    server_name,
)
from pod_integrate.engines.sglang.metrics import Metrics
from pod_integrate.engines.sglang.step import hybrid_batch
from pod_integrate.keys import Geometry
from pod_integrate.op import hybrid_attention

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class StepMetadata:
    """One forward step, shared by its layers; `live` is False for warm-up batches."""

    batch: HybridBatch
    live: bool
    plans: dict[LayerGroup, Plan]


class PodAttnBackend(AttentionBackend):  # type: ignore[misc]
    """Serves plain causal attention over an MHA pool, with sliding windows, logit caps, sinks.

    Raises UnsupportedFeatureError or KernelUnavailableError here, at start-up, for everything
    else; BuildError when the kernel does not compile.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__()
        check_device(device_type(runner))
        check_engine(engine_facts(runner))
        self._pool = runner.token_to_kv_pool
        self._req_to_token = runner.req_to_token_pool.req_to_token
        self._dtype = DTYPES[runner.dtype]
        # Compiled and loaded now: a request should not wait for it, nor fail on it.
        native.load("cpu")
        self._metrics = Metrics(enabled=bool(getattr(runner.server_args, "enable_metrics", False)))
        self._groups = LayerGroups(
            torch.device(str(runner.device)),
            server=server_name(runner),
            reports=is_reporting_rank(runner),
            on_event=self._metrics.count_event,
        )
        self._layers: dict[int, LayerGroup] = {}
        for module in runner.model.modules():
            if isinstance(module, RadixAttention):
                self._group(module)
        if self._groups.records:
            step_time.listen(self._groups.end_step)

    def support_triton(self) -> bool:
        """False: SGLang then prepares its index tables with plain torch code."""
        return False

    def get_cuda_graph_seq_len_fill_value(self) -> int:
        """Length of rows that data parallelism pads a batch with."""
        return 1

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Read the lengths of a step, once for all layers."""
        batch = hybrid_batch(forward_batch, self._req_to_token)
        # Warm-up batches carry no request ids.
        live = forward_batch.rids is not None
        if live:
            self._metrics.count_batch(batch.bucket)
        self.forward_metadata = StepMetadata(batch, live, {})

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend prefill chunks, or chunks and running requests together; [T, Hq * D]."""
        return self._attend(q, k, v, layer, forward_batch, save_kv_cache, kwargs)

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend one token of every request; [T, Hq * D]."""
        return self._attend(q, k, v, layer, forward_batch, save_kv_cache, kwargs)

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool,
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        sinks = kwargs.pop("sinks", None)
        if kwargs:
            check_arguments(layer.layer_id, kwargs)
        group = self._group(layer)
        # Layers that share another layer's KV pass none of their own.
        if save_kv_cache and k is not None and v is not None:
            where = _write_loc(forward_batch)
            self._pool.set_kv_buffer(layer, where, k, v, layer.k_scale, layer.v_scale)
        step = self.forward_metadata
        plan = step.plans.get(group)
        if plan is None:
            plan = step.plans[group] = group.plan(step.batch, live=step.live)
        start = time.perf_counter() if plan.traced is not None else 0.0
        out = self._run(q, layer, step.batch, group.geometry, plan, sinks)
        if plan.traced is not None:
            plan.traced.add_attention(time.perf_counter() - start)
        return out

    def _run(
        self,
        q: torch.Tensor,
        layer: Any,
        batch: HybridBatch,
        geometry: Geometry,
        plan: Plan,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        rows = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        tokens = batch.num_tokens
        # Rows beyond the batch are padding of data parallelism; nobody reads them, but NaN from
        # uninitialised memory would spread through later layers' statistics.
        out[tokens:].zero_()
        hybrid_attention(
            rows[:tokens],
            # The pool is [slots, Hkv, D]: a slot is a page of one token.
            self._pool.get_key_buffer(layer.layer_id).unsqueeze(1),
            self._pool.get_value_buffer(layer.layer_id).unsqueeze(1),
            batch,
            config=plan.config,
            scale=layer.scaling,
            window_left=geometry.window_left,
            logit_cap=geometry.logit_cap,
            sinks=sinks,
            out=out[:tokens],
        )
        return out.view(-1, layer.tp_q_head_num * layer.v_head_dim)

    def _group(self, layer: Any) -> LayerGroup:
        group = self._layers.get(layer.layer_id)
        if group is None:
            check_layers([layer_facts(layer)])
            group = self._layers[layer.layer_id] = self._groups.get(self._geometry(layer))
        return group

    def _geometry(self, layer: Any) -> Geometry:
        window = layer.sliding_window_size
        return Geometry(
            num_q_heads=layer.tp_q_head_num,
            num_kv_heads=layer.tp_k_head_num,
            head_dim=layer.qk_head_dim,
            dtype=self._dtype,
            kv_dtype=self._dtype,
            page_size=1,
            # SGLang's window keeps keys j >= i - window, the same as window_left.
            window_left=int(window) if window is not None and window > -1 else -1,
            logit_cap=float(layer.logit_cap or 0.0),
        )


def _write_loc(forward_batch: Any) -> Any:
    # for_batch is new in 0.5.22; before, a batch's slots were always physical.
    if hasattr(KVWriteLoc, "for_batch"):
        return KVWriteLoc.for_batch(forward_batch)
    return KVWriteLoc(forward_batch.out_cache_loc)
