"""What engines over trained weights said, compared: the numbers of the real part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.engines.job import Run
from benchmarks.real import scores
from benchmarks.real.kept import Kept

# Where each way of being scored is kept.
_WAYS = {"prefill": "windows", "decode": "forced"}


def compared(kept: Mapping[str, Kept], order: Sequence[Run]) -> dict[str, Any]:
    """Every engine against the first of `order`, fp8 ones also against stock's own fp8.

    kept  by the name of a run, of the runs that began

    tie      margin up to which a difference is a near tie: twice what 99 of 100 logprobs of the
             reference's prefill and decode kernels differ by; None where it was not measured
    control  the reference's answers in other batches against its answers
    """
    stock = order[0]
    if stock.name not in kept:
        return {}
    reference = kept[stock.name]
    noise = scores.noise(reference.stage("forced"), reference.stage("forced_by_prefill"))
    tie = None if noise is None else 2 * noise
    margins = reference.stage("margins")
    found: dict[str, Any] = {
        "with": stock.name,
        "tie": tie,
        "control": scores.answers(
            reference.stage("answers"), reference.stage("again"), margins, tie
        ),
        "runs": {},
    }
    for run in order:
        if run.name in kept:
            own = kept[run.name]
            found["runs"][run.name] = _perplexities(own) | _ratios(own, reference, "")
            if own.stage("answers") and run != stock:
                found["runs"][run.name]["answers"] = scores.answers(
                    reference.stage("answers"), own.stage("answers"), margins, tie
                )
            control = run._replace(prefill=stock.prefill, decode=stock.decode).name
            if run.cache != stock.cache and run.name != control and control in kept:
                found["runs"][run.name] |= _ratios(own, kept[control], "_vs_stock_fp8")
    return found


def _perplexities(kept: Kept) -> dict[str, Any]:
    return {
        f"{way}_perplexity": scores.perplexity(kept.stage(stage)) for way, stage in _WAYS.items()
    }


def _ratios(kept: Kept, reference: Kept, name: str) -> dict[str, Any]:
    return {
        f"{way}{name}": scores.ratio(kept.stage(stage), reference.stage(stage))
        for way, stage in _WAYS.items()
    }
