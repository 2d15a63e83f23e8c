"""Output tokens/s of a server that goes on for ever, from a stretch of it, and how sure that is.

A stretch holds whole cycles of prompts, but not the tokens that these prompts are answered with:
some are of requests that were running before. There are two ways to be balanced, by what the server
does in the long run:

decode  it has decode-only steps: so many more, or fewer, as the answers need; no fewer than it had
hybrid  its steps all have prompts: each is as large as before, and runs as many requests as finish
        their answers beside the prompts that it has room for. A step with fewer running requests
        reads fewer keys; how much quicker that is, is fitted to the stretch's own steps.

What neither can balance is refused, and so is what would be changed by more than a tenth, or what
is not known to a tenth.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.engines.serving_figures import Timed

# Below so many steps of a kind their time per token is chance.
_LEAST_STEPS = 8
# More than this share of a rate is no correction.
MOST_CORRECTED = 0.10
# Nor is it known with a larger standard error.
MOST_SPREAD = 0.10
# Parts of a stretch; each is left out once.
_PARTS = 5


class Load(NamedTuple):
    """What a stretch is balanced by.

    prompt, answer  mean tokens
    room            requests that the cache holds at once
    """

    prompt: float
    answer: float
    room: float

    def running(self, size: float) -> float:
        """Requests that run beside prompts for ever, in steps of `size` tokens with no others."""
        return size * (self.answer - 1.0) / (self.prompt + self.answer - 1.0)


class RefusedError(ValueError):
    """A stretch that says nothing of the long run, and why."""


_Way = Callable[[Sequence[Timed], Load], float]


def balanced(steps: Sequence[Timed], load: Load) -> dict[str, Any]:
    """Output tokens/s as measured, and of a server that goes on for ever.

    `steady` is the latter, `correction` what it differs by, `spread` its standard error as a share
    (fifths of the stretch left out in turn). Where it is `refused`, with the reason, `steady` is as
    measured. ValueError without steps.
    """
    found = measured(steps, load)
    rate = found["measured"]
    try:
        way = _by_decode if _has_enough_decodes(steps, load) else _by_hybrid
        steady = way(steps, load)
        told: dict[str, Any] = {"steady": steady, "correction": steady / rate - 1.0}
        told["spread"] = _spread(way, steps, load) / steady
    except RefusedError as why:
        return found | {"steady": rate, "correction": 0.0, "refused": str(why)}
    if abs(told["correction"]) > MOST_CORRECTED:
        told["refused"] = (
            f"in the long run it would differ by {told['correction']:+.0%}, and no more than "
            f"{MOST_CORRECTED:.0%} is corrected: lengthen --stretch"
        )
    elif told["spread"] > MOST_SPREAD:
        told["refused"] = (
            f"its standard error is {told['spread']:.0%}, more than {MOST_SPREAD:.0%}: "
            "lengthen --stretch"
        )
    return found | told


def measured(steps: Sequence[Timed], load: Load) -> dict[str, Any]:
    """Seconds, prompts and output tokens/s of these steps; ValueError without any."""
    if not steps:
        raise ValueError("no step was recorded in the stretch")
    seconds = sum(step.ms for step in steps) / 1e3
    prompts = sum(step.prompt_tokens for step in steps) / load.prompt
    # A prompt's last chunk gives its first token.
    tokens = sum(step.decodes for step in steps) + prompts
    return {"seconds": seconds, "requests": prompts, "measured": tokens / seconds}


def _only(steps: Sequence[Timed], kind: str) -> list[Timed]:
    return [step for step in steps if step.kind == kind and (step.chunks or step.decodes)]


def _excess(steps: Sequence[Timed], load: Load) -> float:
    """Tokens beyond those that the prompts of these steps are answered with."""
    prompts = sum(step.prompt_tokens for step in steps) / load.prompt
    return sum(step.decodes for step in steps) - prompts * (load.answer - 1.0)


def _has_enough_decodes(steps: Sequence[Timed], load: Load) -> bool:
    own = _only(steps, "decode")
    spare = sum(step.decodes for step in own)
    return len(own) >= _LEAST_STEPS and _excess(steps, load) <= spare


def _by_decode(steps: Sequence[Timed], load: Load) -> float:
    own = _only(steps, "decode")
    if not own:
        raise RefusedError("its decode-only steps lie close together: lengthen --stretch")
    token_ms = sum(step.ms for step in own) / sum(step.decodes for step in own)
    prompts = sum(step.prompt_tokens for step in steps) / load.prompt
    ms = sum(step.ms for step in steps) - _excess(steps, load) * token_ms
    if not prompts or ms <= 0.0:
        raise RefusedError("it held no prompt: lengthen --stretch")
    return 1e3 * prompts * load.answer / ms


def _by_hybrid(steps: Sequence[Timed], load: Load) -> float:
    own = _only(steps, "hybrid")
    if len(own) < _LEAST_STEPS:
        raise RefusedError(
            f"it held {len(own)} hybrid steps and {len(_only(steps, 'decode'))} decode-only ones, "
            f"and needs {_LEAST_STEPS} of either: lengthen --stretch"
        )
    size = statistics.fmean(step.prompt_tokens + step.decodes for step in own)
    now = statistics.fmean(step.decodes for step in own)
    running = load.running(size)
    if running > load.room:
        raise RefusedError(
            f"it held {len(_only(steps, 'decode'))} decode-only steps, and in the long run there "
            f"are more: {running:.0f} requests would have to run beside prompts, and the cache "
            f"holds {load.room:.0f}: lengthen --stretch"
        )
    keys = sum(step.keys for step in own) / sum(step.decodes for step in own)
    ms = statistics.fmean(step.ms for step in own) + _ms_per_key(own) * (running - now) * keys
    return 1e3 * (running + (size - running) / load.prompt) / ms


def _ms_per_key(steps: Sequence[Timed]) -> float:
    """Of a running request's keys, by least squares beside the pairs of prompts.

    At least 0, and at most what it would be if a step did nothing else.
    """
    ms = np.asarray([step.ms for step in steps])
    keys = np.asarray([float(step.keys) for step in steps])
    pairs = np.asarray([float(step.pairs) for step in steps])
    columns = np.stack([np.ones_like(ms), pairs / pairs.mean(), keys / keys.mean()], axis=1)
    slope = float(np.linalg.lstsq(columns, ms, rcond=None)[0][2] / keys.mean())
    return min(max(slope, 0.0), float(ms.mean() / keys.mean()))


def _spread(way: _Way, steps: Sequence[Timed], load: Load) -> float:
    """Standard error in tokens/s: fifths of the time left out in turn (jackknife)."""
    until = np.cumsum([step.ms for step in steps])
    part = np.minimum(_PARTS - 1, (_PARTS * until / until[-1]).astype(int))
    without = functools.partial(_without, way, steps, load, part)
    rates = [without(number) for number in range(_PARTS)]
    mean = statistics.fmean(rates)
    return math.sqrt((_PARTS - 1) / _PARTS * sum((rate - mean) ** 2 for rate in rates))


def _without(way: _Way, steps: Sequence[Timed], load: Load, part: Any, number: int) -> float:
    return way([step for step, own in zip(steps, part, strict=True) if own != number], load)
