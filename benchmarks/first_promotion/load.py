"""A server's steps: requests of long prompts and short answers, batched as SGLang does."""

from __future__ import annotations

import random
from typing import NamedTuple

_CHUNK = 2048


class Step(NamedTuple):
    """Host lengths of one batch, prefill chunk first."""

    q_lens: list[int]
    kv_lens: list[int]

    @property
    def captured(self) -> bool:
        """Whether it replays a graph: steps that only decode do."""
        return max(self.q_lens) == 1


class Load:
    """Always `running` requests; one that ends makes room for the next."""

    def __init__(self, seed: int, *, running: int, prompt: int, answer: int) -> None:
        self._random = random.Random(seed)
        self._running, self._prompt, self._answer = running, prompt, answer
        self._decodes: list[list[int]] = []
        # Tokens that are in the cache, and those of its prompt.
        self._prefill = (0, 0)

    def step(self) -> Step:
        """The next batch."""
        done, prompt = self._prefill
        if done == prompt and len(self._decodes) < self._running:
            done, prompt = self._prefill = 0, self._draw(self._prompt)
        chunk = min(_CHUNK, prompt - done)
        for request in self._decodes:
            request[0] += 1
            request[1] -= 1
        step = Step(
            [*([chunk] if chunk else []), *[1] * len(self._decodes)],
            [*([done + chunk] if chunk else []), *(request[0] for request in self._decodes)],
        )
        self._prefill = done + chunk, prompt
        self._decodes = [request for request in self._decodes if request[1] > 0]
        if chunk and done + chunk == prompt:
            self._decodes.append([prompt, self._draw(self._answer)])
        return step

    def _draw(self, mean: int) -> int:
        return max(16, int(mean * self._random.uniform(0.5, 1.5)))
