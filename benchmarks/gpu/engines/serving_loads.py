"""What the serving part serves: shapes of published models, and lengths of public request logs.

A load is a short cycle of (prompt, answer) tokens that is sent over and over, so that any stretch
of as many prompts as the cycle has, wherever it begins, holds the same prompts. The cycles have the
mean lengths of their logs: one request from each of as many equal parts of the log, ordered by
prompt, longer ones than CONTEXT left out; seeds chosen so that the means agree within half a
percent.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.gpu.engines.places import PLACES
from pod_integrate.demo.llama import llama_config
from pod_integrate.model.dense import DenseModel
from pod_integrate.terms.keys import Geometry

CONTEXT = 32_768
# Of the smallest GPU that it is meant for, and what an engine takes beside weights and cache.
_GPU_BYTES, _OTHER_BYTES = 139 << 30, 5 << 30
Lengths = tuple[tuple[int, int], ...]


class Shape(NamedTuple):
    """A model with weights that SGLang draws (--load-format dummy), and its place on a GPU.

    heads    (query, KV, head dim)
    hidden, mlp, vocab  sizes
    pool     tokens of KV cache: two engines of it fit 139 GiB side by side
    running  requests at once at most
    """

    heads: tuple[int, int, int]
    layers: int
    hidden: int
    mlp: int
    vocab: int
    pool: int
    running: int = 64
    architecture: str = "LlamaForCausalLM"
    context: int = CONTEXT

    def beside(self, engines: int) -> Self:
        """With the pool that fits when so many engines of it stand on one GPU, or its own."""
        q_heads, kv_heads, head_dim = self.heads
        attention = 2 * (q_heads + kv_heads) * head_dim * self.hidden
        layers = self.layers * (attention + 3 * self.hidden * self.mlp)
        weights = 2 * (layers + 2 * self.vocab * self.hidden)
        room = _GPU_BYTES // engines - weights - _OTHER_BYTES
        token = 2 * 2 * kv_heads * head_dim * self.layers
        return self._replace(pool=min(self.pool, room // token))

    def dense(self) -> DenseModel:
        """For the model of steps."""
        return DenseModel(self.layers, self.hidden, self.mlp, self.vocab, *self.heads)

    def geometry(self, kv_dtype: str) -> Geometry:
        """Of its layers in SGLang."""
        return self.dense().geometry(kv_dtype)


SHAPES = {
    "llama3-8b": Shape((32, 8, 128), 32, 4096, 14336, 128_256, 5 << 16),
    "yi-6b": Shape((32, 4, 128), 32, 4096, 11008, 64_000, 7 << 16),
    # Its cache is four times as large, so that few long prompts fit.
    "llama2-7b": Shape((32, 32, 128), 32, 4096, 11008, 32_000, 5 << 14),
    "qwen3-8b": Shape(
        (32, 8, 128), 36, 4096, 12288, 151_936, 9 << 15, architecture="Qwen3ForCausalLM"
    ),
    "tiny": Shape((8, 2, 32), 2, 256, 512, 256, 2048, running=8, context=1024),
}

LOADS: dict[str, Lengths] = {
    # POD-Attention's artifact (MIT), arXiv summarisation: mean 10,031 and 469 tokens.
    "arxiv": (
        *((15047, 403), (5115, 236), (5415, 145), (12127, 410), (17853, 472), (8315, 1294)),
        *((22165, 958), (6407, 543), (10063, 291), (4622, 347), (5843, 286), (7400, 239)),
    ),
    # POD-Attention's paper: 16.5K tokens in all, prompts 12, 15 and 18 times as long as answers.
    "pd": ((15231, 1269), (15632, 868), (15469, 1031)),
    # Azure LLM inference traces of 2023 (CC-BY 4.0): mean 2,048 and 28; 1,156 and 211.
    "azure-code": (
        *((424, 15), (1108, 27), (4434, 12), (2969, 24), (140, 6), (348, 16), (1262, 7)),
        *((1486, 17), (2318, 12), (1985, 19), (6818, 49), (964, 9), (46, 232), (4285, 46)),
        *((3600, 9), (2492, 29), (1656, 6), (267, 8), (763, 63), (96, 9), (1323, 10)),
        *((622, 15), (7436, 18), (2257, 11)),
    ),
    "azure-conversation": (
        *((388, 100), (421, 100), (881, 118), (392, 83), (2966, 55), (1111, 401), (1016, 420)),
        *((181, 92), (1199, 440), (1786, 50), (1164, 395), (403, 81), (195, 122), (1103, 391)),
        *((1053, 432), (913, 394), (4086, 53), (1031, 375), (375, 71), (1315, 193), (225, 109)),
        *((401, 109), (1071, 433), (4072, 49)),
    ),
    # Mooncake's conversations (Apache-2.0) up to CONTEXT, no prefix reused: mean 8,520 and 340.
    "mooncake": (
        *((3239, 440), (1006, 3), (11126, 83), (4421, 237), (6912, 466), (898, 984)),
        *((1962, 775), (20789, 289), (13177, 108), (24640, 324), (5391, 361), (8682, 8)),
    ),
    "tiny": ((200, 12), (90, 8), (150, 10)),
}


def means(lengths: Lengths) -> tuple[float, float]:
    """Mean tokens of a prompt and of an answer."""
    count = len(lengths)
    return sum(p for p, _ in lengths) / count, sum(a for _, a in lengths) / count


def held(shape: Shape, lengths: Lengths) -> float:
    """Requests that are in the server at once when its cache is full, about.

    At any time longer answers are under way more often than short ones, half done on average.
    """
    answers = sum(a for _, a in lengths)
    keys = sum(a * (p + a / 2) for p, a in lengths) / answers
    return max(1.0, min(shape.running, shape.pool / keys))


def running(lengths: Lengths, count: int) -> Lengths:
    """What is left of `count` requests of a server that has run for ever: (keys, tokens to come).

    Spread evenly over all of a cycle's answers, one after the other.
    """
    total = sum(a for _, a in lengths)
    found = []
    for number in range(count):
        at = (number + 0.5) / count * total
        for prompt, answer in lengths:
            if at < answer:
                done = min(int(at), answer - 1)
                found.append((prompt + done, answer - done))
                break
            at -= answer
    return tuple(found)


def requests(lengths: Lengths, vocab: int, first: int) -> Iterator[dict[str, Any]]:
    """The cycle without end.

    first  so many begin as if they had been running, so that a server that starts empty is at once
           as it would be for ever
    """
    draw = random.Random(0)
    most = max(p + a for p, a in lengths)
    ids = [draw.randrange(3, vocab) for _ in range(most + len(lengths))]
    begun = list(running(lengths, first))
    draw.shuffle(begun)
    for number, (prompt, answer) in enumerate(itertools.chain(begun, itertools.cycle(lengths))):
        # Each place of the cycle has its own text.
        place = number % len(lengths)
        yield {"ids": ids[place : place + prompt], "new": answer}


def write_model(folder: Path, shape: Shape) -> None:
    """A folder with the config alone: SGLang draws the weights, the same every time."""
    q_heads, kv_heads, head_dim = shape.heads
    config = llama_config(
        layers=shape.layers, q_heads=q_heads, kv_heads=kv_heads, head_dim=head_dim,
        vocab=shape.vocab, max_context=shape.context, tie_word_embeddings=False,
        architectures=[shape.architecture],
    )  # fmt: skip
    config.intermediate_size = shape.mlp
    if shape.architecture.startswith("Qwen3"):
        from transformers import Qwen3Config

        told = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "dtype")}
        config = Qwen3Config(**told)
    config.save_pretrained(folder)


def engine_arguments(
    backend: str, folder: Path, shape: Shape, *, device: str, chunks: list[int], kv: str, port: int
) -> dict[str, Any]:
    """Of sglang.Engine: the same for all backends, but for the page that trtllm_mha needs.

    chunks  that it will be measured at; it starts with the largest, mixed
    kv      "auto" or a dtype of the KV cache
    """
    place = PLACES[device]
    found: dict[str, Any] = {
        "model_path": str(folder), "load_format": "dummy", "skip_tokenizer_init": True,
        "device": device, "port": port, "prefill_attention_backend": backend,
        "decode_attention_backend": backend,
        "enable_mixed_chunk": True, "chunked_prefill_size": max(chunks),
        "max_prefill_tokens": 16_384, "schedule_policy": "fcfs", "disable_radix_cache": True,
        "kv_cache_dtype": kv, "max_total_tokens": shape.pool, "sampling_backend": "pytorch",
        "max_running_requests": shape.running, "grammar_backend": "none", "random_seed": 0,
        # Engines that stand beside it, and one that waits for its turn.
        "mem_fraction_static": 0.95 if place.accelerates else 0.5, "watchdog_timeout": 3600.0,
        "log_level": "info", "dtype": place.engine["dtype"],
    }  # fmt: skip
    if backend == "trtllm_mha":
        found["page_size"] = 64
    if place.prefill_graphs:
        found |= {
            "cuda_graph_backend_prefill": "breakable",
            "cuda_graph_bs_prefill": prefill_graphs(chunks),
            "cuda_graph_bs_decode": decode_graphs(shape.running),
        }
    return found


# Above it a step takes so long on the device that eager launches hide behind it.
_MOST_CAPTURED = 2048
_CAPTURED_STEP = 256


def prefill_graphs(chunks: list[int]) -> list[int]:
    """Captured sizes of prefill and mixed steps: tokens."""
    most = min(_MOST_CAPTURED, max(chunks))
    return sorted({*range(_CAPTURED_STEP, most + 1, _CAPTURED_STEP), most})


def decode_graphs(running: int) -> list[int]:
    """Captured batch sizes of decode steps, as SGLang's own up to `running`."""
    return sorted({size for size in (1, 2, 4, 8, 12) if size <= running}
                  | set(range(16, running + 1, 8)) | {running})  # fmt: skip
