"""What scenarios of continuous batching share: one model, its answers, and how they register."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.engines import hf_models
from benchmarks.engines.hf_models import batching, generation

TOKENS = 16
LENGTHS = (5, 37, 90, 64, 33, 1)
PATIENCE_SECONDS = 120.0


class Skip(Exception):
    """This version of transformers does not have what a scenario is about."""


class Models:
    """One model on `pod` and on stock attention, prompts and their greedy answers."""

    def __init__(self) -> None:
        self.pod = hf_models.build("llama", "pod")
        self.stock = hf_models.build("llama", "sdpa")
        self.prompts = hf_models.random_prompts(LENGTHS)
        self.want = [hf_models.greedy(self.stock, [p], TOKENS)[0] for p in self.prompts]

    def manager(self, tokens: int = TOKENS, **extra: Any) -> Any:
        """A manager of the model on `pod` that stops when the block ends."""
        return self.pod.continuous_batching_context_manager(
            generation_config=generation(tokens, **extra), continuous_batching_config=batching()
        )

    def check(self, got: Any) -> None:
        """Raise AssertionError unless the answers to all prompts are as stock attention's."""
        equal(got, self.want)


Scenarios = dict[str, Callable[[Models], None]]


def scenario(
    scenarios: Scenarios, name: str
) -> Callable[[Callable[[Models], None]], Callable[[Models], None]]:
    """Decorator that files a function under `name`."""

    def keep(function: Callable[[Models], None]) -> Callable[[Models], None]:
        scenarios[name] = function
        return function

    return keep


def equal(got: Any, want: Any) -> None:
    """Raise AssertionError unless both are the same."""
    if got != want:
        raise AssertionError(f"got {got}, stock attention gives {want}")


def finished(manager: Any, count: int) -> list[Any]:
    """The next `count` answers of a manager, or AssertionError when they take too long."""
    outputs: list[Any] = []
    end = time.monotonic() + PATIENCE_SECONDS
    while len(outputs) < count and time.monotonic() < end:
        output = manager.get_result(timeout=1)
        if output is not None and output.is_finished():
            outputs.append(output)
    if len(outputs) < count:
        raise AssertionError(f"{len(outputs)} of {count} requests finished in time")
    return outputs
