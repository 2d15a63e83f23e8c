"""Sliding-window layers whose keys SGLang keeps in a pool of their own (its SWAKVPool).

SGLang's slot table names slots of the pool of full layers. That pool maps them to slots of the
other one, where only what a window still reaches is kept. Layers with a window read a table of
those slots, as large as SGLang's, so that one step's lengths and page starts serve both.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch

from pod_integrate.terms.batch import HybridBatch

WINDOW_POOL = "SWAKVPool"
_PLAIN = "MHATokenToKVPool"


class WindowStep(NamedTuple):
    """One step, to layers with a window.

    batch  the step's, over slots of the window pool
    write  slots of its new tokens there, int64; None where it has none
    """

    batch: HybridBatch
    write: torch.Tensor | None


class WindowSlots:
    """Slots of the window pool, of every request; one step's at a time are current.

    pool          SGLang's SWAKVPool
    req_to_token  [requests, context] int32, SGLang's table of slots, contiguous
    window        widest of the model's, keys before a token's own
    """

    def __init__(self, pool: Any, req_to_token: torch.Tensor) -> None:
        self._pool, self._full = pool, req_to_token.view(-1)
        # Zero is the slot that padding writes: what no window reaches names no other memory.
        self._slots = torch.zeros_like(self._full)
        self._write = torch.empty(0)
        self._outgrown: list[torch.Tensor] = []
        self.window = 0

    @classmethod
    def of(cls, runner: Any) -> WindowSlots | None:
        """Of a ModelRunner; None where its pool keeps all layers alike."""
        pool = runner.token_to_kv_pool
        if type(pool).__name__ != WINDOW_POOL:
            return None
        return cls(pool, runner.req_to_token_pool.req_to_token)

    def reserve(self, max_tokens: int) -> None:
        """Captured steps of up to `max_tokens` tokens write where `begin` says before a replay."""
        if max_tokens > self._write.numel():
            place = self._slots.device
            # Graphs that were captured with it read it still.
            self._outgrown.append(self._write)
            self._write = torch.zeros(max_tokens, dtype=torch.int64, device=place)

    def holds(self, layer_id: int) -> bool:
        """Whether a layer's keys are in the window pool."""
        return bool(self._pool.layers_mapping[layer_id][1])

    def begin(self, forward_batch: Any, batch: HybridBatch, *, captured: bool) -> WindowStep:
        """Look up what the windows of a step reach; ordered on the current stream.

        captured  a graph will read it: at the addresses that it was captured with
        """
        if batch.num_requests:
            self._update(batch)
        write = forward_batch.out_cache_loc
        if write is not None:
            write = self._pool.translate_loc_from_full_to_swa(write)
        if captured:
            write = self._rewritten(write)
        return WindowStep(dataclasses.replace(batch, page_indices=self._slots), write)

    def _rewritten(self, write: torch.Tensor | None) -> torch.Tensor:
        """`write` where captured steps read it; SGLang tells none of rows that are padding."""
        tokens = 0 if write is None else write.numel()
        # The graph writes them all the same, and not where an earlier step's tokens are.
        self._write[tokens:].zero_()
        return self._write[:0] if write is None else self._write[:tokens].copy_(write)

    def _update(self, batch: HybridBatch) -> None:
        q_lens, kv_lens = batch.lengths
        # A chunk's first token sees as many keys before itself as its last one.
        pairs = zip(q_lens, kv_lens, strict=True)
        reach = torch.tensor([min(self.window + q_len, kv_len) for q_len, kv_len in pairs])
        total, place = int(reach.sum()), self._slots.device
        ends = batch.page_starts + batch.kv_lens.to(place, torch.int64, non_blocking=True)
        reach = reach.to(place, non_blocking=True)
        # The last of request b's keys is followed by the first of request b + 1's.
        shift = ends - reach.cumsum(0)
        at = torch.arange(total, device=place)
        at += torch.repeat_interleave(shift, reach, output_size=total)
        found = self._pool.translate_loc_from_full_to_swa(self._full[at].long())
        self._slots[at] = found.to(torch.int32)


def plain_pools(pool: Any) -> list[Any]:
    """The pools that a KV pool is made of, by layers: two of a SWAKVPool, else itself."""
    if type(pool).__name__ != WINDOW_POOL:
        return [pool]
    parts = ((pool.full_kv_pool, pool.full_layer_nums), (pool.swa_kv_pool, pool.swa_layer_nums))
    return [part for part, layers in parts if layers]


def pool_name(pool: Any) -> str:
    """Class of a KV pool; of a SWAKVPool also what it is made of, unless that is plain."""
    inner = sorted({type(part).__name__ for part in plain_pools(pool)})
    name = type(pool).__name__
    return name if inner in ([name], [_PLAIN]) else f"{name} of {' and '.join(inner)}"


def is_served(name: str) -> bool:
    """Whether the backend reads a pool of this name."""
    return name in (_PLAIN, WINDOW_POOL)
