"""The traffic that truth is measured on: ragged steps, each bucket's all different."""

from __future__ import annotations

import random
from typing import NamedTuple

from pod_integrate.model.batches import Lengths
from pod_integrate.terms.keys import Bucket, Geometry

# Lengths of a step about their middle: shares, and the sigma of a log-normal.
_CHUNK, _CONTEXT, _COUNT, _SIGMA = 0.2, 0.25, 0.15, 0.35
_TWO_CHUNKS = 0.25


class Traffic(NamedTuple):
    """Steps around one batch, written as Lengths.parse reads it; heads of one GPU, page size 1.

    repeats  calls per round: a short one is as noisy as it is cheap
    """

    name: str
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    batch: str
    repeats: int = 1

    @property
    def geometry(self) -> Geometry:
        """SGLang's default page size, bf16."""
        heads = (self.num_q_heads, self.num_kv_heads, self.head_dim)
        return Geometry.uniform(heads, "bf16", page_size=1)

    @property
    def bucket(self) -> Bucket:
        """Where all of its steps belong."""
        return Bucket.of(*Lengths.parse(self.batch))

    def steps(self, count: int) -> list[Lengths]:
        """So many distinct steps of the bucket, the same ones every time."""
        rng, found = random.Random(f"{self.name}, {self.batch}"), dict[Lengths, None]()
        while len(found) < count:
            step = _ragged(Lengths.parse(self.batch), rng)
            if Bucket.of(*step) == self.bucket:
                found[step] = None
        return list(found)


# The quickest first: what they leave of their share of the time goes to the next.
TRAFFIC = (
    Traffic("Llama-3-8B decodes", 32, 8, 128, "d48@8k"),
    Traffic("SmolLM2-135M hybrid", 9, 3, 64, "p256@2k+d32@2k", repeats=3),
    Traffic("Llama-3-8B long chunk", 32, 8, 128, "p2k@16k+d64@8k"),
    Traffic("Llama-3-8B hybrid", 32, 8, 128, "p512@4k+d32@4k"),
)
# What the planner's own rules are judged by: small and large, with few and many heads, either side
# alone and both.
_RULES = {
    (32, 8, 128): "p128@128 p512@512 p2k@2k p512@4k d8@2k d32@4k p256@2k+d32@2k p512@512+d32@1k "
    "p512@2k+d128@1k p512@8k+d64@4k p1k@1k+d128@2k p1k@12k+d80@12k p2k@2k+d128@2k p2k@32k+d16@4k "
    "p4k@4k+d128@4k p8k@8k+d16@8k p8k@8k+d4@32k p512@16k+d64@16k",
    (8, 1, 128): "p512@512 p512@4k+d64@4k p2k@8k+d32@8k p1k@16k+d128@4k",
    (16, 16, 128): "p512@2k+d32@2k p2k@2k+d32@2k",
    (64, 8, 64): "p512@512 d64@4k p512@4k+d32@4k p2k@8k+d64@4k p4k@4k+d128@4k",
    (9, 3, 64): "p256@256+d16@1k p1k@2k+d64@2k",
}
RULES = tuple(
    Traffic(f"{q}/{kv}/{d} {batch}", q, kv, d, batch)
    for (q, kv, d), batches in _RULES.items()
    for batch in batches.split()
)
# Of the same kinds, for the emulated SM.
TINY = (
    Traffic("tiny hybrid", 2, 1, 64, "p24@48+d3@40"),
    Traffic("tiny decodes", 2, 1, 64, "d4@64", repeats=2),
)


def _ragged(middle: Lengths, rng: random.Random) -> Lengths:
    prefill, decode = middle.prefill, middle.decode
    rows = [row for row in zip(*prefill, strict=True) for row in _chunks(*row, rng)]
    if decode.q_lens:
        count = round(len(decode.q_lens) * rng.uniform(1 - _COUNT, 1 + _COUNT))
        context = decode.kv_lens[0]
        rows += [(1, max(1, round(context * rng.lognormvariate(0, _SIGMA)))) for _ in range(count)]
    return Lengths.of(*zip(*rows, strict=True))


def _chunks(tokens: int, context: int, rng: random.Random) -> list[tuple[int, int]]:
    """One chunk, or the end of one prompt and the beginning of the next one's work."""
    tokens = max(4, round(tokens * rng.uniform(1 - _CHUNK, 1 + _CHUNK)))
    first = round(tokens * rng.uniform(0.2, 0.8)) if rng.random() < _TWO_CHUNKS else tokens
    sizes = [size for size in (first, tokens - first) if size]
    contexts = [round(context * rng.uniform(1 - _CONTEXT, 1 + _CONTEXT)) for _ in sizes]
    return [(size, max(size, kv)) for size, kv in zip(sizes, contexts, strict=True)]
