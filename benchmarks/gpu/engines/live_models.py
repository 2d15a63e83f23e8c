"""What the live part serves: models, their loads, and every variant that a search may ask for."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import random
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.engines.figures import RUNNING
from pod_integrate.demo import smollm2
from pod_integrate.demo.llama import llama_config
from pod_integrate.devices.base import Device, OneOf
from pod_integrate.devices.cuda.choices import tiles_of
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Dtype, Geometry

# Requests of so many passes differ; then they begin again.
_LOADS = 16
# Of an engine's KV cache.
_TOKENS = 3 << 16
_QUESTION, _ANSWER = (256, 1024), 128
_TOKENIZER_TEXTS = ("README.md", "docs")


class Model(NamedTuple):
    """A model and its load.

    heads           (query, KV, head dim)
    prompt, answer  tokens of a request in the mean; drawn between half of it and half more
    running         requests of a pass, all sent at once
    trained         its weights are a file's, so that its answers mean something
    """

    heads: tuple[int, int, int]
    dtype: Dtype
    layers: int
    mlp: int
    vocab: int
    context: int
    prompt: int
    answer: int
    running: int
    trained: bool = False


MODELS = {
    "llama8b": Model((32, 8, 128), "bf16", 32, 14336, 128256, 1 << 14, 10_000, 470, 16),
    "smollm2": Model((9, 3, 64), "bf16", 30, 1536, 49152, 1 << 13, 3000, 300, 48, trained=True),
    "tiny": Model((8, 2, 32), "fp32", 2, 512, 256, 1 << 10, 200, 24, 6),
}


def geometry_of(model: Model) -> Geometry:
    """Of its layers, as SGLang has them."""
    return Geometry.uniform(model.heads, model.dtype, page_size=1)


def write_model(folder: Path, model: Model, options: argparse.Namespace) -> dict[str, Any]:
    """Make the model's folder; arguments of the engine that go with it.

    Raises FileNotFoundError where a trained model's --weights are not there.
    """
    if model.trained:
        smollm2.write_model(options.weights, folder, "bfloat16")
        return {"context_length": model.context}
    q_heads, kv_heads, head_dim = model.heads
    config = llama_config(
        layers=options.layers or model.layers, q_heads=q_heads, kv_heads=kv_heads,
        head_dim=head_dim, vocab=model.vocab, max_context=model.context,
        tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.intermediate_size = model.mlp
    config.save_pretrained(folder)
    # SGLang draws the weights, the same every time: nothing is written or read. Two engines share
    # one GPU.
    return {"load_format": "dummy", "max_total_tokens": _TOKENS}


def loads(model: Model, options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Requests of each pass; all passes ask for the same number of tokens."""
    draw = random.Random(0)
    prompt, answer = options.prompt or model.prompt, options.answer or model.answer
    running = options.running or model.running
    news = [max(8, int(answer * draw.uniform(0.5, 1.5))) for _ in range(running)]
    most = model.context - max(news) - 8

    def request(new: int) -> dict[str, Any]:
        length = min(most, int(prompt * draw.uniform(0.5, 1.5)))
        ids = [draw.randrange(3, model.vocab) for _ in range(length)]
        return {"kind": RUNNING, "ids": ids, "new": new, "at": 0.0}

    return [[request(new) for new in draw.sample(news, running)] for _ in range(_LOADS)]


def questions(folder: Path, root: Path, count: int) -> list[dict[str, Any]]:
    """Pieces of this repository's own text as prompts of the model in `folder`."""
    import transformers

    paths = [root / _TOKENIZER_TEXTS[0], *sorted((root / _TOKENIZER_TEXTS[1]).glob("*.md"))]
    text = "\n".join(path.read_text() for path in paths if path.is_file())
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    draw = random.Random(1)
    found = []
    for _ in range(count):
        length = draw.randrange(*_QUESTION)
        begin = draw.randrange(max(1, len(ids) - length))
        piece = ids[begin : begin + length]
        found.append({"kind": RUNNING, "ids": piece, "new": _ANSWER, "at": 0.0})
    return found


def configs_to_build(device: Device, geometry: Geometry) -> list[PodConfig]:
    """One config of every variant in the search space of a geometry, the default's first."""
    default = device.default_config(geometry)
    tiles = device.choices(geometry).parameters.get("tiles", OneOf(()))
    assert isinstance(tiles, OneOf), tiles
    found = [default]
    for name in tiles.names:
        config = with_tiles(default, tiles_of(name))
        try:
            device.require_feasible(config, geometry)
        except ConfigError:
            continue
        found.append(config)
    return found


def build_all(device: Device, geometry: Geometry) -> int:
    """Compile them, as many at a time as there are cores; how many there are."""
    device.load()
    configs = configs_to_build(device, geometry)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda config: device.build(geometry, config), configs))
    return len(configs)
