"""What people serve: geometries of well-known models, and kinds of steps that their servers run."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.gpu.truth.buckets import Traffic
from pod_integrate.terms.keys import Geometry, KvDtype


class Served(NamedTuple):
    """One geometry of a tensor-parallel rank at SGLang's default page size, bf16.

    models  that have it, e.g. `Llama 3 70B tp4`
    heads   query heads, KV heads, head dim
    """

    models: str
    heads: tuple[int, int, int]
    window_left: int = -1
    logit_cap: float = 0.0
    kv_dtype: KvDtype = "bf16"

    @property
    def geometry(self) -> Geometry:
        """The key that a server looks its table up by."""
        q_heads, kv_heads, head_dim = self.heads
        return Geometry(
            num_q_heads=q_heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            dtype="bf16",
            kv_dtype=self.kv_dtype,
            page_size=1,
            window_left=self.window_left,
            logit_cap=self.logit_cap,
        )

    def traffic(self, batch: str) -> Traffic:
        """Ragged steps around one batch; of geometries with the same heads the same ones."""
        return Traffic("/".join(map(str, self.heads)), *self.heads, batch)


# Windows are those of SGLang: the keys before a query's own.
SERVED: tuple[Served, ...] = (
    Served("Llama 3 8B, Qwen 3 8B, Mistral 7B", (32, 8, 128)),
    Served("Llama 3 70B tp4, Qwen 3 32B tp4", (16, 2, 128)),
    Served("Llama 3 70B tp8, Qwen 3 32B tp8", (8, 1, 128)),
    Served("gpt-oss, full layers", (64, 8, 64)),
    Served("Qwen 3 32B, Llama 3 70B", (64, 8, 128)),
    Served("Llama 3 8B, Qwen 3 8B, Mistral 7B; cache of 8 bits", (32, 8, 128), kv_dtype="e4m3"),
    Served("SmolLM2 135M", (9, 3, 64)),
    Served("Gemma 3 12B, full layers", (16, 8, 256)),
    Served("Llama 3 8B tp4, Qwen 3 8B tp4", (8, 2, 128)),
    Served("gpt-oss, layers with a window", (64, 8, 64), window_left=127),
    Served("Llama 3 70B tp4, Qwen 3 32B tp4; cache of 8 bits", (16, 2, 128), kv_dtype="e4m3"),
    Served("Gemma 2 9B, full layers", (16, 8, 256), logit_cap=50.0),
    Served("Gemma 3 12B, layers with a window", (16, 8, 256), window_left=1023),
    Served("Gemma 2 9B, layers with a window", (16, 8, 256), window_left=4095, logit_cap=50.0),
)
# Chunks beside decodes as a server mixes them, and decodes alone; those met most often first.
BATCHES: tuple[str, ...] = (
    "p2k@2k+d64@2k",
    "p512@2k+d32@2k",
    "p2k@8k+d64@8k",
    "d64@4k",
    "p512@8k+d64@4k",
    "p8k@8k+d32@4k",
    "p1k@1k+d128@2k",
    "p256@1k+d16@1k",
    "p2k@4k+d32@4k",
    "d32@8k",
    "p4k@4k+d64@4k",
    "p512@4k+d64@4k",
    "p1k@4k+d32@4k",
    "d128@2k",
    "p512@512+d32@1k",
    "p2k@16k+d32@8k",
)
# Of the same kinds, for the emulated SM.
TINY_SERVED: tuple[Served, ...] = (
    Served("tiny", (2, 1, 64)),
    Served("tiny, capped", (2, 1, 64), logit_cap=30.0),
)
TINY_BATCHES: tuple[str, ...] = ("p24@48+d3@40", "d4@64")
