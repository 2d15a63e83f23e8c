"""Attention backend `pod`: every batch SGLang forms becomes one call of hybrid_attention per layer.

Prefill chunks and running requests of a batch are attended together, whatever SGLang calls the
batch. Lengths are known on the host, so nothing waits for the device. On a GPU decode steps run in
CUDA graphs (`graphs`), others eagerly, also between the segments of breakable prefill graphs.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.layers.radix_attention import RadixAttention

from pod_integrate.arguments import plain
from pod_integrate.devices.call import Attention, Result
from pod_integrate.devices.registry import device_named
from pod_integrate.engines.sglang import step_time
from pod_integrate.engines.sglang.alternatives import Machine
from pod_integrate.engines.sglang.captures import Captures
from pod_integrate.engines.sglang.checks import (
    check_arguments,
    check_device,
    check_engine,
    check_layers,
)
from pod_integrate.engines.sglang.facts import (
    cache_scales,
    device_type,
    engine_facts,
    is_reporting_rank,
    layer_facts,
    layer_geometry,
    server_name,
)
from pod_integrate.engines.sglang.metrics import Metrics
from pod_integrate.engines.sglang.rows import clear_padding, output_rows, write_loc
from pod_integrate.engines.sglang.step import StepMetadata, hybrid_batch
from pod_integrate.engines.sglang.windows import WindowSlots
from pod_integrate.live.groups import LayerGroups
from pod_integrate.live.layer_group import LayerGroup, StepPlan
from pod_integrate.op import attend
from pod_integrate.terms.geometry import DTYPES, KV_DTYPES
from pod_integrate.terms.scalars import Scalars

logger = logging.getLogger(__name__)


class PodAttnBackend(AttentionBackend):  # type: ignore[misc]
    """Serves plain causal attention over MHA pools, with sliding windows, logit caps, sinks.

    Raises UnsupportedFeatureError or KernelUnavailableError here, at start-up, for everything
    else; BuildError when the kernel does not compile.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__()
        check_device(device_type(runner))
        self._device = device_named(str(runner.device))
        self._machine, facts = Machine.of(self._device), engine_facts(runner, self._device)
        check_engine(facts, self._machine)
        # Under these names models, SGLang's fused KV writers and its graph runners ask for them.
        self.token_to_kv_pool = runner.token_to_kv_pool
        self.req_to_token_pool = runner.req_to_token_pool
        self._windows = WindowSlots.of(runner)
        self._dtypes = DTYPES[runner.dtype], KV_DTYPES[runner.kv_cache_dtype]
        self._quantised = runner.kv_cache_dtype != runner.dtype
        # Compiled and loaded now: a request should not wait for it, nor fail on it.
        self._device.load()
        enabled = bool(getattr(runner.server_args, "enable_metrics", False))
        reports = is_reporting_rank(runner)
        self._metrics = Metrics(enabled=enabled, reports=reports)
        self._groups = LayerGroups(
            self._device,
            server=server_name(runner),
            reports=reports,
            on_event=self._metrics.count_event,
            batch_invariant=facts.deterministic,
        )
        self._layers: dict[int, LayerGroup] = {}
        self._captures = Captures(runner, self._groups, self._metrics, facts.speculation)
        for module in runner.model.modules():
            if isinstance(module, RadixAttention):
                self._group(module)
        if self._groups.records:
            step_time.listen(self._groups.clock.start, self._groups.end_step)

    def support_triton(self) -> bool:
        """False on a CPU: SGLang then prepares its index tables with plain torch code."""
        return self._device.runs_triton

    def get_cuda_graph_seq_len_fill_value(self) -> int:
        """Length of rows that data parallelism or a captured batch size pads a batch with."""
        return 1

    def get_cpu_graph_seq_len_fill_value(self) -> int:
        """The same where SGLang runs as its own CPU engine."""
        return 1

    @property
    def verify_mask(self) -> Any:
        """SGLang's place for the shape of a step's drafts, which are a chain here."""
        return self._captures.verify_mask

    def shared_read_ends(self, mode: Any) -> Any:
        """Decode steps read req_to_token until their replay ends; others as SGLang assumes."""
        # New in 0.5.18; before, nothing asks.
        from sglang.srt.layers.attention.base_attn_backend import SharedReadEnds

        return SharedReadEnds.POST_REPLAY if mode.is_decode() else SharedReadEnds.UNKNOWN

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int) -> None:
        """Reserve what captured decode or verify steps of up to `max_bs` requests read."""
        self._captures.reserve(max_bs, max_num_tokens)
        if self._windows is not None:
            self._windows.reserve(max_num_tokens)

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        """Prepare a step for its capture, or for a replay of what was captured."""
        step = self._captures.prepare(forward_batch, in_capture=in_capture)
        self.forward_metadata = self._with_windows(forward_batch, step, captured=True)

    def init_forward_metadata_in_graph(self, forward_batch: Any) -> None:
        """Nothing to record: all that a captured step reads is rewritten before its replay."""

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Read the lengths of a step, once for all layers."""
        batch = hybrid_batch(forward_batch, self.req_to_token_pool.req_to_token)
        # Warm-up batches carry no request ids.
        live = forward_batch.rids is not None
        verifies = forward_batch.forward_mode.is_target_verify()
        if live:
            self._metrics.count_batch("verify" if verifies else batch.bucket.sides)
        step = StepMetadata(batch, live and not verifies)
        self.forward_metadata = self._with_windows(forward_batch, step, captured=False)

    def _with_windows(self, forward_batch: Any, step: StepMetadata, captured: bool) -> StepMetadata:
        if self._windows is not None:
            step.window = self._windows.begin(forward_batch, step.batch, captured=captured)
        return step

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
        """Attend chunks, chunks and running requests together, or drafts; [T, Hq * D]."""
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
            where = write_loc(forward_batch, self.forward_metadata.window_write)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v, layer.k_scale, layer.v_scale)
        plan = self._plan(group)
        rows = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        out = output_rows(forward_batch, rows)
        clear_padding(out, self.forward_metadata.batch.num_tokens)
        # SGLang makes sinks bf16 for every backend but one of its own.
        sinks = None if sinks is None else sinks.float()
        plan.run(layer.layer_id, functools.partial(self._run, rows, out, layer, group, sinks))
        return out.view(-1, layer.tp_q_head_num * layer.v_head_dim)

    def _plan(self, group: LayerGroup) -> StepPlan:
        step = self.forward_metadata
        if group not in step.plans:
            mine = step.layers.get(group)
            if mine is None:
                step.plans[group] = group.plan(step.batch, live=step.live)
            else:
                captured = mine.captured
                step.plans[group] = StepPlan(captured.attention, timer=captured.timer)
        return step.plans[group]

    def _run(
        self,
        rows: torch.Tensor,
        out: torch.Tensor,
        layer: Any,
        group: LayerGroup,
        sinks: torch.Tensor | None,
        attention: Attention,
        instead: torch.Tensor | None,
    ) -> Result:
        """Attend `rows` into `out`, or into `instead` where it is given."""
        step, geometry = self.forward_metadata, group.geometry
        tokens = step.batch.num_tokens
        into = out if instead is None else instead
        if tokens < rows.shape[0]:
            rows, into = rows[:tokens], into[:tokens]
        scales = cache_scales(layer) if self._quantised else ()
        return attend(
            attention,
            rows,
            # The pool is [slots, Hkv, D]: a slot is a page of one token.
            self.token_to_kv_pool.get_key_buffer(layer.layer_id).unsqueeze(1),
            self.token_to_kv_pool.get_value_buffer(layer.layer_id).unsqueeze(1),
            step.batch_of(group),
            plain(Scalars(layer.scaling, geometry.window_left, geometry.logit_cap, *scales)),
            sinks=sinks,
            out=into,
            plan=step.device_plan(group, layer.layer_id),
        )

    def _group(self, layer: Any) -> LayerGroup:
        group = self._layers.get(layer.layer_id)
        if group is None:
            check_layers([layer_facts(layer, self._device, self._windows)], self._machine)
            group = self._layers[layer.layer_id] = self._groups.get(
                layer_geometry(layer, *self._dtypes)
            )
            group.layers.append(layer.layer_id)
            if self._windows is not None:
                self._windows.window = max(self._windows.window, group.geometry.window_left)
        return group
