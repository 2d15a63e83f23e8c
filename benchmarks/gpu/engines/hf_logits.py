"""Why greedy answers of two attentions differ: logits of the same tokens, against fp32.

Every attention reads the same prompts and answers, so that one early difference cannot grow into a
late one. A first different token is a near tie when fp32 puts its two candidates no further apart
than the rounding of stock attention moves two logits.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.engines.hf_models import padded
from benchmarks.gpu.engines import figures

Tokens = list[list[int]]
# Requests that are attended at once: eager keeps all of their scores.
_GROUP = 8


class Flip(NamedTuple):
    """The first token of an answer that differs: which request, which step, both candidates."""

    request: int
    step: int
    want: int
    got: int


def forced(model: Any, prompts: Tokens, answers: Tokens) -> torch.Tensor:
    """Logits before each token of the answers, [requests, steps, vocabulary] fp32 on the CPU.

    Prompts go through the model at once, padded on the left, then one token a step, as in
    generate(). All answers have the same length.
    """
    order = sorted(range(len(prompts)), key=lambda request: len(prompts[request]))
    logits: dict[int, torch.Tensor] = {}
    for begin in range(0, len(order), _GROUP):
        group = order[begin : begin + _GROUP]
        found = _group(model, [prompts[r] for r in group], [answers[r] for r in group])
        logits.update(zip(group, found, strict=True))
    return torch.stack([logits[request] for request in range(len(prompts))])


def _group(model: Any, prompts: Tokens, answers: Tokens) -> torch.Tensor:
    ids, mask = padded(prompts, model.device)
    steps = torch.tensor(answers, device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = transformers.DynamicCache(config=model.config)
    logits = []
    with torch.no_grad():
        for step in range(steps.shape[1]):
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits.append(out.logits[:, -1].float().cpu())
            ids = steps[:, step : step + 1]
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = positions[:, -1:] + 1
    return torch.stack(logits, dim=1)


def errors(got: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Distance of logits to fp32's.

    logit_mean, logit_max  absolute error
    kl_mean, kl_max        divergence of the next token's distribution, nats
    top1_equal             share of steps with the same most likely token
    noise                  99th percentile of the error of the distance of fp32's top two logits
    """
    off = (got - truth).abs()
    exact, found = truth.double().log_softmax(-1), got.double().log_softmax(-1)
    divergence = (exact.exp() * (exact - found)).sum(-1)
    return {
        "logit_mean": float(off.mean()),
        "logit_max": float(off.max()),
        "kl_mean": float(divergence.mean()),
        "kl_max": float(divergence.max()),
        "top1_equal": float((got.argmax(-1) == truth.argmax(-1)).double().mean()),
        "noise": _noise(got, truth),
    }


def _noise(got: torch.Tensor, truth: torch.Tensor) -> float:
    best = truth.topk(2, dim=-1).indices
    apart = [logits.gather(-1, best).diff(dim=-1) for logits in (got, truth)]
    return figures.noise((apart[0] - apart[1]).abs().flatten().tolist())


def margins(truth: torch.Tensor) -> dict[str, float]:
    """How far apart fp32's top two logits are, over all steps."""
    apart = truth.topk(2, dim=-1).values.diff(dim=-1).abs().flatten().tolist()
    shares = {"p1": 0.01, "p10": 0.1, "median": 0.5}
    return {name: figures.quantile(apart, share) for name, share in shares.items()}


def first_differences(want: Tokens, got: Tokens) -> Iterator[Flip]:
    """One for each answer that is not equal."""
    for request, (a, b) in enumerate(zip(want, got, strict=True)):
        step = figures.parting(a, b)
        if step < len(a):
            yield Flip(request, step, a[step], b[step])


def explain(want: Tokens, got: Tokens, truth: torch.Tensor, noise: float) -> dict[str, Any]:
    """What fp32 says of the first differences between two sets of answers.

    truth  forced(fp32 model, prompts, want)
    noise  how far rounding moves the distance of two logits, errors(stock attention, truth)

    near_ties is of figures, by fp32's gaps. fp32_says_* are shares: whose token is fp32's choice.
    """
    flips = list(first_differences(want, got))
    if not flips:
        return {"differences": 0}
    rows = [truth[flip.request, flip.step] for flip in flips]
    gaps = [abs(float(row[f.want] - row[f.got])) for row, f in zip(rows, flips, strict=True)]
    chosen = [int(row.argmax()) for row in rows]
    count = len(flips)
    return {
        "differences": count,
        "gap_median": statistics.median(gaps),
        "gap_max": max(gaps),
        "noise": noise,
        "near_ties": figures.near_ties(gaps, noise),
        "fp32_says_want": sum(c == f.want for c, f in zip(chosen, flips, strict=True)) / count,
        "fp32_says_got": sum(c == f.got for c, f in zip(chosen, flips, strict=True)) / count,
    }
