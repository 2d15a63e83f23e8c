"""What each patched function of transformers does instead; `patches` lists where they go.

Each wrapper leaves calls that do not concern `pod` to the original.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from pod_integrate.engines.transformers import engine, paged
from pod_integrate.engines.transformers.checks import check_graphs, consults_interface
from pod_integrate.engines.transformers.stock import warn_once

NAME = "pod"
# 5.12 to 5.17 put the prefix before the name of a model in continuous batching.
NAMES = (NAME, f"paged|{NAME}")


def wrap_gate(original: Callable[..., Any]) -> Callable[..., Any]:
    """Continuous batching: no mask for `pod`, no switch to another attention, no refusal.

    Flash attention of one version, which brings its own block tables, is never claimed.
    """

    @functools.wraps(original)
    def gate(
        config: Any = None, requested_attention_implementation: Any = None, version: Any = None
    ) -> bool:
        name = requested_attention_implementation
        if config is not None:
            name = config._attn_implementation
        if name in NAMES:
            return version is None
        return bool(original(config, requested_attention_implementation, version))

    return gate


def wrap_prepare(original: Callable[..., Any]) -> Callable[..., Any]:
    """Take a step's lengths where they are host integers, and skip upstream's read indices."""

    @functools.wraps(original)
    def prepare_batch_tensors(
        self: Any, requests_in_batch: list[Any], *args: Any, **kwargs: Any
    ) -> None:
        if self.config._attn_implementation not in NAMES:
            paged.forget(self.cache)
            original(self, requests_in_batch, *args, **kwargs)
            return
        requests = [
            # Upstream moves position_offset on while it prepares.
            (future.state.request_id, future.state.position_offset, future.query_length)
            for future in requests_in_batch
        ]
        bound = inspect.signature(original).bind(self, requests_in_batch, *args, **kwargs)
        # One index per cached token, for a gather that POD does not do: 0 makes none.
        bound.arguments["max_kv_read"] = 0
        original(*bound.args, **bound.kwargs)
        paged.prepare(self.cache, requests)

    return prepare_batch_tensors


def wrap_compute(original: Callable[..., Any]) -> Callable[..., Any]:
    """Name the step that a forward belongs to, and time it."""

    @functools.wraps(original)
    def compute_batch(self: Any, model: Any, batch_data: Any) -> Any:
        if model.config._attn_implementation not in NAMES:
            return original(self, model, batch_data)
        mark = engine.start_step(model.device)
        with paged.running(batch_data["cache"]):
            result = original(self, model, batch_data)
        engine.end_step(model.device, mark)
        return result

    return compute_batch


def wrap_update(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the cache on to the attention function, as releases before this one do themselves.

    From 5.24 on the model's own layer updates the cache and attends what `update` gives back.
    """

    @functools.wraps(original)
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def update(
        self: Any, key_states: Any, value_states: Any, layer_idx: int, kwargs: dict[str, Any]
    ) -> Any:
        if paged.prepared(self) is None:
            return original(self, key_states, value_states, layer_idx, kwargs)
        kwargs["cache"] = self
        return key_states, value_states

    return update


def wrap_resolve(original: Callable[..., Any]) -> Callable[..., Any]:
    """Accelerator graphs are refused when asked for and off otherwise."""

    @functools.wraps(original)
    def resolve(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        if bound.arguments["config"]._attn_implementation in NAMES:
            asked = bound.arguments["cb_config"]
            check_graphs(asked)
            bound.arguments["cb_config"] = _without_graphs(asked)
        return original(*bound.args, **bound.kwargs)

    return resolve


def _without_graphs(config: Any) -> Any:
    # A copy: the user's config may serve another model next.
    return dataclasses.replace(config, use_cuda_graph=False)


def wrap_validate(original: Callable[..., Any]) -> Callable[..., Any]:
    """`transformers serve` accepts `--attn-implementation pod` beside its own list."""

    @functools.wraps(original)
    def validate(self: Any) -> None:
        name = self.attn_implementation
        if name not in NAMES:
            original(self)
            return
        self.attn_implementation = None
        try:
            original(self)
        finally:
            self.attn_implementation = name

    return validate


def wrap_choose(original: Callable[..., Any]) -> Callable[..., Any]:
    """Loading with "pod" says when a model's layers will never ask for it."""

    @functools.wraps(original)
    def get_correct_attn_implementation(
        self: Any, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> Any:
        if requested_attention in NAMES and not consults_interface(self):
            warn_once(f"{type(self).__name__} does not take other attention functions")
        return original(self, requested_attention, *args, **kwargs)

    return get_correct_attn_implementation
