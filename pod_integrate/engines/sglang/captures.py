"""What captured steps of the backend need: plans to replay with, a guard, SGLang's mask."""

from __future__ import annotations

from typing import Any

import torch

from pod_integrate.engines.sglang.checks import check_decode_graphs
from pod_integrate.engines.sglang.graph_guard import GraphGuard
from pod_integrate.engines.sglang.graphs import DecodeGraphs
from pod_integrate.engines.sglang.metrics import Metrics
from pod_integrate.engines.sglang.speculation import Speculation, chain_mask
from pod_integrate.engines.sglang.step import StepMetadata
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.live.groups import LayerGroups


class Captures:
    """Decode steps, or verify steps where this backend verifies drafts, under CUDA graphs.

    runner       SGLang's ModelRunner
    speculation  None where the server does not speculate
    verify_mask  SGLang's place for the shape of a step's drafts, which are a chain here
    """

    def __init__(
        self,
        runner: Any,
        groups: LayerGroups,
        metrics: Metrics,
        speculation: Speculation | None,
    ) -> None:
        self._runner, self._groups, self._metrics = runner, groups, metrics
        self._speculation = speculation
        # Its type is SGLang's.
        self.verify_mask: Any = None
        self._graphs: DecodeGraphs | None = None
        self._guard: GraphGuard | None = None

    def reserve(self, max_requests: int, max_tokens: int) -> None:
        """Steps of up to `max_requests` are about to be captured, again or for the first time."""
        found = self._speculation
        check_decode_graphs(max_requests, max_tokens, speculates=found is not None)
        tokens = max_tokens // max_requests
        if found is not None and found.verifies:
            device = torch.device(self._runner.device)
            self.verify_mask = chain_mask(max_requests, tokens, device)
        if self._graphs is None:
            table = self._runner.req_to_token_pool.req_to_token
            self._graphs = DecodeGraphs(table, max_requests, tokens=tokens)
            self._guard = GraphGuard(self._runner, self._graphs, self._metrics.count_event)
        else:
            self._graphs.renew(max_requests)

    def prepare(self, forward_batch: Any, *, in_capture: bool) -> StepMetadata:
        """The step to capture or to replay; raises UnsupportedFeatureError for other kinds."""
        mode = forward_batch.forward_mode
        verifies = mode.is_target_verify()
        if self._graphs is None or self._guard is None or not (mode.is_decode() or verifies):
            raise UnsupportedFeatureError(
                f"attention backend pod captures decode and verify steps only, got {mode!s}; use "
                "--cuda-graph-backend-prefill breakable or disabled"
            )
        if in_capture:
            step = self._graphs.capture(forward_batch, self._groups.all())
        else:
            self._guard.replayed(int(forward_batch.batch_size))
            step = self._graphs.update(forward_batch)
            self._metrics.count_batch("verify" if verifies else step.bucket.sides)
        return StepMetadata(step.batch, live=False, layers=step.layers)
