"""Greedy tokens of one model on `pod` against stock attention, in every way transformers has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.engines import hf_models

TOKENS = 16
# Ragged, around pages of 16 and windows of 24, and longer than the chunks of CHUNKS.
LENGTHS = (5, 37, 90, 33, 1)
CHUNKS = (16, 48)

_PADDED: dict[str, dict[str, Any]] = {
    "dynamic cache, left padding": {},
    "static cache, left padding": {"cache_implementation": "static"},
    "beam search": {"num_beams": 2},
}


class Compared(NamedTuple):
    """One way to generate: whether tokens, or the refusal, were equal, and what there is to say."""

    name: str
    equal: bool
    detail: str = ""


def compare(name: str) -> list[Compared]:
    """All cases of one of hf_models.MODELS."""
    stock = hf_models.build(name, hf_models.reference_of(name))
    pod = hf_models.build(name, "pod")
    prompts = hf_models.random_prompts(LENGTHS)
    cases = [_both(way, stock, pod, prompts[:3], extra) for way, extra in _PADDED.items()]
    # Upstream's prompt lookup needs an end token; the prompt repeats, so there is what to look up.
    lookup = {"prompt_lookup_num_tokens": 3, "eos_token_id": 2}
    cases.append(_both("assisted generation", stock, pod, [prompts[1] * 2], lookup))
    # One by one: the packed batches of stock continuous batching are not the reference, they
    # have had errors of their own.
    alone = [hf_models.greedy(stock, [prompt], TOKENS)[0] for prompt in prompts]
    cases += [
        _case(
            f"generate_batch, chunks of {chunk}",
            lambda: alone,
            functools.partial(hf_models.batched, pod, prompts, TOKENS, max_batch_tokens=chunk),
        )
        for chunk in CHUNKS
    ]
    return cases


def _both(
    name: str, stock: Any, pod: Any, prompts: list[list[int]], extra: dict[str, Any]
) -> Compared:
    run = functools.partial(hf_models.greedy, prompts=prompts, tokens=TOKENS, **extra)
    return _case(name, functools.partial(run, stock), functools.partial(run, pod))


def _case(name: str, stock: Callable[[], Any], pod: Callable[[], Any]) -> Compared:
    want, refused = _outcome(stock)
    got, error = _outcome(pod)
    if refused is not None:
        # Releases differ in what they refuse; then the two have to refuse the same.
        return Compared(name, error == refused, f"stock raises {refused}, pod {error}")
    if error is not None:
        return Compared(name, False, error)
    wrong = [row for row, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
    detail = f"rows {wrong} differ: {got} instead of {want}"[:400] if wrong else ""
    return Compared(name, not wrong, detail)


def _outcome(run: Callable[[], Any]) -> tuple[Any, str | None]:
    try:
        return run(), None
    except Exception as error:
        # An error is a result to compare, and the next way is tried whatever it was.
        return None, f"{type(error).__name__}: {error}"
