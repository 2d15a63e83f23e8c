"""transformers' generate_batch on this GPU's own stack: `pod` against `sdpa`, tokens and time.

A random Llama of real head counts in bf16. Rounding differs between attentions, and a random model
has many near ties, so tokens are compared up to each answer's first difference too.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import torch
import transformers

from pod_integrate import hf

from . import machine
from .output import Output, add_output

_IMPLEMENTATIONS = ("sdpa", "pod")
_VOCAB = 1024


def make_model(implementation: str, layers: int) -> Any:
    """Llama with 16 query and 4 KV heads of 128, random weights in bf16, the same every time."""
    config = transformers.LlamaConfig(
        vocab_size=_VOCAB,
        hidden_size=2048,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=1 << 15,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=implementation, dtype=torch.bfloat16
        )
    return model.eval()


def make_prompts(count: int, longest: int) -> list[list[int]]:
    """Token ids of ragged prompts."""
    draw = random.Random(0)
    lengths = [draw.randrange(longest // 16, longest) for _ in range(count)]
    return [[draw.randrange(2, _VOCAB) for _ in range(length)] for length in lengths]


def generate(model: Any, prompts: list[list[int]], new: int) -> tuple[list[list[int]], float]:
    """Greedy answers in the order of the prompts, and seconds."""
    options = transformers.GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=None)
    torch.cuda.synchronize()
    began = time.perf_counter()
    with torch.no_grad():
        answers = model.generate_batch(inputs=prompts, generation_config=options)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return [list(answers[name].generated_tokens) for name in _in_order(answers)], seconds


def _in_order(answers: dict[str, Any]) -> list[str]:
    return sorted(answers, key=lambda name: int(name.rsplit("_", 1)[-1]))


def compare(want: list[list[int]], got: list[list[int]]) -> dict[str, float]:
    """Share of answers that are equal, and of tokens before the first difference."""
    same = 0
    for a, b in zip(want, got, strict=True):
        same += next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    equal = sum(a == b for a, b in zip(want, got, strict=True))
    return {"answers_equal": equal / len(want), "tokens_equal": same / sum(map(len, want))}


def main(arguments: list[str] | None = None) -> None:
    """Run each implementation twice, the second time counts; hf.json."""
    parser = argparse.ArgumentParser(prog="hf", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--longest", type=int, default=4096, help="prompt, tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--layers", type=int, default=8)
    add_output(parser)
    options = parser.parse_args(arguments)
    if options.backend != "cuda":
        parser.error("transformers runs its whole model here, which the emulated SM cannot")
    output = Output(options.out, "hf")
    document: dict[str, Any] = {
        "machine": machine.report(),
        "transformers": transformers.__version__,
        "runs": {},
    }
    hf.enable()
    prompts = make_prompts(options.requests, options.longest)
    answers: dict[str, list[list[int]]] = {}
    for name in _IMPLEMENTATIONS:
        model = make_model(name, options.layers)
        generate(model, prompts[:4], 4)
        answers[name], seconds = generate(model, prompts, options.new)
        tokens = options.requests * options.new
        run = {"seconds": seconds, "tokens_per_second": tokens / seconds}
        run |= compare(answers[_IMPLEMENTATIONS[0]], answers[name])
        document["runs"][name] = run
        output.save(document)
        print(name, {key: round(value, 3) for key, value in run.items()}, flush=True)
        del model
        torch.cuda.empty_cache()
