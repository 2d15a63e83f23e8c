"""generate_batch() on `pod`, `sdpa` and `paged|eager`: tokens per second, attention time, gathers.

    python benchmarks/hf_generate_batch.py [--contexts 256,1024,2048] [--repeats 3]

One random Llama, the same prompts for all three, interleaved; medians of the repeats. Attention
time is all time inside the attention function, cache update included. Gathered bytes are K/V rows
that stock attention copies out of the paged cache in each step, counted at upstream's own update.
Writes results/hf_generate_batch.json and the headlines hf.generate_batch_speedup_vs_sdpa and
hf.gather_bytes_avoided_per_step (longest context).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import transformers
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmarks import _results
from benchmarks.engines import hf_models
from pod_integrate import hf
from pod_integrate.demo.answers import blocks_of
from pod_integrate.demo.llama import llama_config
from pod_integrate.engines.transformers.ring import RingGather

IMPLEMENTATIONS = ("sdpa", "paged|eager", "pod")
LAYERS, REQUESTS, TOKENS, CHUNK, PAGE = 4, 8, 24, 256, 64


class Meter:
    """Seconds inside attention, steps, and bytes gathered, in all and at most in one layer."""

    def __init__(self) -> None:
        self.attention_seconds = 0.0
        self.steps = 0
        self.gathered = 0
        self.largest_gather = 0

    def count(self, tensors: tuple[torch.Tensor, ...]) -> None:
        """Add one layer's copy of cached rows."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.gathered += size
        self.largest_gather = max(self.largest_gather, size)


@contextlib.contextmanager
def metered(implementation: str) -> Iterator[Meter]:
    """Measure what runs in the block; upstream and `pod` are watched alike."""
    meter = Meter()
    functions = transformers.AttentionInterface._global_mapping
    attention = functions[implementation]
    update, step, join = PagedAttentionCache.update, ModelRunner.compute_batch, RingGather.join

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = attention(*args, **kwargs)
        meter.attention_seconds += time.perf_counter() - start
        return result

    def updated(self: Any, key_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        states = update(self, key_states, *args, **kwargs)
        # Without cached rows to read, update hands the new ones back and copies nothing.
        if states[0].numel() != key_states.numel():
            meter.count(states)
        return states

    def stepped(*args: Any, **kwargs: Any) -> Any:
        meter.steps += 1
        return step(*args, **kwargs)

    def joined(*args: Any) -> Any:
        rows = join(*args)
        meter.count((rows,))
        return rows

    with (
        mock.patch.dict(functions, {implementation: timed}),
        mock.patch.object(PagedAttentionCache, "update", updated),
        mock.patch.object(ModelRunner, "compute_batch", stepped),
        mock.patch.object(RingGather, "join", joined),
    ):
        yield meter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", default="256,1024,2048", help="prompt lengths, tokens")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    hf.enable()
    models = {name: hf_models.from_config(_config(), name) for name in IMPLEMENTATIONS}
    contexts = [int(part) for part in options.contexts.split(",")]
    rows = [row for context in contexts for row in _context(models, context, options.repeats)]
    for row in rows:
        print(row, flush=True)
    command = f"python benchmarks/hf_generate_batch.py --contexts {options.contexts}"
    _write(rows, f"{command} --repeats {options.repeats}")


def _config() -> Any:
    return llama_config(
        layers=LAYERS,
        q_heads=8,
        kv_heads=4,
        head_dim=64,
        vocab=hf_models.VOCAB,
        max_context=8192,
        eos_token_id=None,
    )


def _context(models: dict[str, Any], context: int, repeats: int) -> list[dict[str, Any]]:
    # Lengths around the context, so that prompts end at different steps and batches are hybrid.
    lengths = [context * (6 + number % 5) // 8 for number in range(REQUESTS)]
    prompts = hf_models.random_prompts(lengths)
    answers: dict[str, Any] = {}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    # The first round warms up and compares.
    for repeat in range(repeats + 1):
        for name, model in models.items():
            answers[name], numbers = _once(model, name, prompts)
            if repeat:
                measured[name].append(numbers)
    rows = []
    for name in models:
        row: dict[str, Any] = {"context": context, "implementation": name}
        for key in measured[name][0]:
            row[key] = statistics.median(numbers[key] for numbers in measured[name])
        row["tokens_equal_sdpa"] = answers[name] == answers["sdpa"]
        rows.append(row)
    return rows


def _once(model: Any, name: str, prompts: list[list[int]]) -> tuple[Any, dict[str, float]]:
    blocks = blocks_of(prompts, TOKENS, PAGE)
    asked = {"page": PAGE, "num_blocks": blocks, "max_batch_tokens": CHUNK}
    with metered(name) as meter:
        start = time.perf_counter()
        answer = hf_models.batched(model, prompts, TOKENS, **asked)
        seconds = time.perf_counter() - start
    return answer, {
        "seconds": seconds,
        "new_tokens_per_second": len(prompts) * TOKENS / seconds,
        "attention_seconds": meter.attention_seconds,
        "steps": meter.steps,
        "gathered_bytes_per_step": meter.gathered / meter.steps,
        "largest_gather_bytes": meter.largest_gather,
    }


def _write(rows: list[dict[str, Any]], command: str) -> None:
    shape = f"random Llama, {LAYERS} layers, 8 query and 4 KV heads, head dim 64, fp32"
    load = f"{REQUESTS} prompts, {TOKENS} new tokens each, chunks of {CHUNK}, pages of {PAGE}"
    document: dict[str, Any] = {"command": command, "model": shape, "load": load, "rows": rows}
    document["transformers"] = transformers.__version__
    document["threads"] = torch.get_num_threads()
    _results.write("hf_generate_batch", document)
    longest = max(row["context"] for row in rows)
    last = {row["implementation"]: row for row in rows if row["context"] == longest}
    ratio = last["sdpa"]["seconds"] / last["pod"]["seconds"]
    what = f"x, sdpa time / ours, {REQUESTS} prompts of about {longest} tokens, fp32"
    _results.record_headline("hf.generate_batch_speedup_vs_sdpa", ratio, what, command)
    saved = last["sdpa"]["gathered_bytes_per_step"] - last["pod"]["gathered_bytes_per_step"]
    what = f"bytes of K/V per step, over {LAYERS} layers, prompts of about {longest} tokens"
    _results.record_headline("hf.gather_bytes_avoided_per_step", saved, what, command)


if __name__ == "__main__":
    main()
