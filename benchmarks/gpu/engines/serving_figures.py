"""Figures of a stretch of serving: rates by steps, waits of clients, and where time went.

A stretch holds whole cycles of prompts, but not the tokens that these prompts are answered with:
some are of requests that were running before. `balanced` gives the rate that the server would go on
at, by its own decode steps: so many more, or fewer, as the load's answers need.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.engines.figures import percentile

KINDS = ("prefill", "hybrid", "decode")
# Below so many decode-only steps their time per token is chance.
_LEAST_DECODE_STEPS = 8


class Timed(NamedTuple):
    """One recorded step.

    forward, gap  ms of the device in the forward, and from its end to the next one's begin
    chunks        [query tokens, keys] of each prompt's part
    decodes, keys running requests, and keys of all of them
    """

    forward: float
    gap: float
    chunks: list[list[int]]
    decodes: int
    keys: int

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if not self.chunks:
            return "decode"
        return "hybrid" if self.decodes else "prefill"

    @property
    def ms(self) -> float:
        """Until the next step begins."""
        return self.forward + self.gap

    @property
    def prompt_tokens(self) -> int:
        """Of prompts."""
        return sum(q for q, _ in self.chunks)


def timed(steps: Sequence[Sequence[Any]], begin: float, end: float) -> list[Timed]:
    """Steps that were launched between two Unix times, but the last, whose gap nobody knows."""
    inside = [step for step in steps if begin <= step[0] <= end]
    return [
        Timed(one[2] - one[1], max(0.0, after[1] - one[2]), one[3], one[4], one[5])
        for one, after in zip(inside, inside[1:], strict=False)
    ]


def balanced(steps: Sequence[Timed], prompt: float, answer: float) -> dict[str, float]:
    """Output tokens/s as measured, and of a server that goes on for ever.

    prompt, answer  mean tokens of the load

    `steady` is what the stretch was but for its share of answers: its decode-only steps give or
    take the tokens that its prompts have too few or too many. It is `measured` where there are too
    few such steps to tell. ValueError without steps.
    """
    if not steps:
        raise ValueError("no step was recorded in the stretch")
    seconds = sum(step.ms for step in steps) / 1e3
    prompts = sum(step.prompt_tokens for step in steps) / prompt
    # A prompt's last chunk gives its first token.
    tokens = sum(step.decodes for step in steps)
    found = {"seconds": seconds, "requests": prompts, "measured": (tokens + prompts) / seconds}
    only = [step for step in steps if step.kind == "decode" and step.decodes]
    if len(only) < _LEAST_DECODE_STEPS or not prompts:
        return found | {"steady": found["measured"], "correction": 0.0}
    token_s = sum(step.ms for step in only) / 1e3 / sum(step.decodes for step in only)
    more = (prompts * (answer - 1.0) - tokens) * token_s
    if seconds + more <= 0.0:
        return found | {"steady": found["measured"], "correction": 0.0}
    return found | {
        "steady": prompts * answer / (seconds + more), "correction": more / seconds,
    }  # fmt: skip


def shares(steps: Sequence[Timed]) -> dict[str, Any]:
    """By kind of step: share of the time, steps, medians; and the share between forwards."""
    total = sum(step.ms for step in steps)
    found: dict[str, Any] = {"gap_share": sum(step.gap for step in steps) / total}
    for kind in KINDS:
        own = [step for step in steps if step.kind == kind]
        if own:
            found[kind] = {
                "share": sum(step.ms for step in own) / total, "steps": len(own),
                "forward_ms": statistics.median(step.forward for step in own),
                "gap_ms": statistics.median(step.gap for step in own),
                "tokens": statistics.mean(step.prompt_tokens + step.decodes for step in own),
                "decodes": statistics.mean(step.decodes for step in own),
            }  # fmt: skip
    return found


def waits(found: dict[str, Any], seconds: float, target_ms: float) -> dict[str, float]:
    """Of clients: TTFT and ITL, and tokens/s that came within `target_ms` of the one before."""
    gaps = [gap for gap, count in found["itl_ms"] for _ in range(count)]
    told: dict[str, float] = {}
    for name, values in (("ttft_ms", found["ttft_ms"]), ("itl_ms", gaps)):
        if values:
            told |= {f"{name}_p{p}": percentile(values, p) for p in (50, 99)}
    good = sum(gap <= target_ms for gap in gaps)
    return told | {
        "goodput_tokens_per_second": good / seconds,
        "client_tokens_per_second": (len(gaps) + len(found["ttft_ms"])) / seconds,
    }


def attention(records: Iterable[Any], begin: float, end: float) -> dict[str, Any]:
    """From traces of `pod` between two Unix times: attention's share of a forward, by kind."""
    inside = [r for r in records if begin <= r.time <= end and r.attention_us and r.step_us]
    found: dict[str, Any] = {}
    for kind in KINDS:
        own = [r for r in inside if _kind(r) == kind]
        if own:
            spent = sum(r.attention_us for r in own)
            found[kind] = {"share": spent / sum(r.step_us for r in own), "steps": len(own)}
    return found


def _kind(record: Any) -> str:
    decodes = sum(q == 1 for q in record.q_lens)
    if decodes == len(record.q_lens):
        return "decode"
    return "hybrid" if decodes else "prefill"
