"""Figures of a stretch of serving: its steps, where their time went, and waits of clients."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.engines.figures import percentile
from pod_integrate.model.batches import visible_pairs

KINDS = ("prefill", "hybrid", "decode")
# More between two forwards than sampling takes: the device waited for the host.
_LATE_MS = 1.0


class Timed(NamedTuple):
    """One recorded step.

    forward, gap  ms of the device in the forward, and from its end to the next one's begin
    chunks        [query tokens, keys] of each prompt's part
    decodes, keys running requests, and keys of all of them
    queued, busy  ms that queueing the forward took the host, and for which its thread had a core
                  meanwhile; None in older records
    """

    forward: float
    gap: float
    chunks: list[list[int]]
    decodes: int
    keys: int
    queued: float | None = None
    busy: float | None = None

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

    @property
    def pairs(self) -> int:
        """(query, key) pairs of prompts."""
        q_lens, kv_lens = ([chunk[side] for chunk in self.chunks] for side in (0, 1))
        return int(visible_pairs(q_lens, kv_lens, -1).sum())


def timed(steps: Sequence[Sequence[Any]], begin: float, end: float) -> list[Timed]:
    """Steps that were launched between two Unix times, but the last, whose gap nobody knows."""
    inside = [step for step in steps if begin <= step[0] <= end]
    return [
        Timed(one[2] - one[1], max(0.0, after[1] - one[2]), *one[3:])
        for one, after in zip(inside, inside[1:], strict=False)
    ]


def shares(steps: Sequence[Timed]) -> dict[str, Any]:
    """By kind of step: share of the time, steps, medians; and the share between forwards.

    `late_share` is of the gaps alone in which the device must have waited for the host.
    """
    total = sum(step.ms for step in steps)
    late = sum(step.gap for step in steps if step.gap > _LATE_MS)
    found: dict[str, Any] = {
        "gap_share": sum(step.gap for step in steps) / total, "late_share": late / total,
    }  # fmt: skip
    for kind in KINDS:
        own = [step for step in steps if step.kind == kind]
        if own:
            found[kind] = {
                "share": sum(step.ms for step in own) / total, "steps": len(own),
                "forward_ms": statistics.median(step.forward for step in own),
                "gap_ms": statistics.median(step.gap for step in own),
                "tokens": statistics.mean(step.prompt_tokens + step.decodes for step in own),
                "decodes": statistics.mean(step.decodes for step in own),
                **_of_host(own),
            }  # fmt: skip
    return found


def _of_host(steps: Sequence[Timed]) -> dict[str, float]:
    """Medians of what queueing a forward took, where that is known.

    A host whose `queued_ms` come near the time of a step is late whenever anything delays it; one
    that was `busy_ms` for less of them waited, for the machine or for another thread.
    """
    found: dict[str, float] = {}
    for name in ("queued", "busy"):
        values = [value for step in steps if (value := getattr(step, name)) is not None]
        if values:
            found[f"{name}_ms"] = statistics.median(values)
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
