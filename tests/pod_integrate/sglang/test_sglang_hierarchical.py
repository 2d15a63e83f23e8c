"""A hierarchical cache loads keys and values layer by layer, beside the step that reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

HEADS, KV_HEADS, DIM = 4, 2, 32


class Load:
    """As SGLang's LayerDoneCounter: what a layer's load brings is there once it was waited for."""

    def __init__(self, pool: Any) -> None:
        self.waited: list[int] = []
        self._caches = [pool.k_buffer[0], pool.v_buffer[0]]
        self._rows = [cache.clone() for cache in self._caches]
        for cache in self._caches:
            cache.fill_(torch.nan)

    def wait_until(self, layer: int) -> None:
        if not self.waited:
            for cache, rows in zip(self._caches, self._rows, strict=True):
                # What the step itself wrote stays.
                cache.copy_(torch.where(cache.isnan(), rows, cache))
        self.waited.append(layer)


def attend(kit: SimpleNamespace, small: Any) -> torch.Tensor:
    q, k, v = small.actual_module.project_qkv(small.input_hidden)
    k3, v3 = (x.view(-1, KV_HEADS, DIM) for x in (k, v))
    with kit.dense.forward_context(kit.dense.ForwardContext(attn_backend=small.backend)):
        small.backend.init_forward_metadata(small.forward_batch)
        out: torch.Tensor = small.backend.forward(
            q, k3, v3, small.actual_module.attn, small.forward_batch
        )
    return out


def test_keys_that_a_load_still_brings_are_waited_for_in_each_layer(
    kit: SimpleNamespace, small: Any
) -> None:
    with torch.no_grad():
        expected = attend(kit, small)
        assert expected.isfinite().all()
        pool = small.runner.token_to_kv_pool
        # The second step: what the first one kept of the pool must not stand in for a wait.
        load = Load(pool)
        pool.register_layer_transfer_counter(load)
        assert torch.equal(attend(kit, small), expected)
        first = len(load.waited)
        assert first >= 1 and set(load.waited) == {0}
        attend(kit, small)
    assert len(load.waited) == 2 * first
