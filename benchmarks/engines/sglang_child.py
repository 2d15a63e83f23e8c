"""One SGLang model in this very process, decoded greedily: what `sglang_families` runs in forks.

Importing this module imports all of SGLang, model classes included: some twenty seconds, once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engines.sglang_decoded import Decoded

with warnings.catch_warnings():
    # SGLang warns about kernels that it misses on a CPU while it is imported.
    warnings.simplefilter("ignore")
    from sglang.benchmark import one_batch
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.models.registry import ModelRegistry
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import PortArgs, prepare_server_args

    load_plugins()
    ModelRegistry.get_supported_archs()

FLAGS = (
    "--device cpu --dtype float32 --mem-fraction-static 0.5 --max-total-tokens 1024 "
    "--max-running-requests 8 --random-seed 0 --skip-tokenizer-init"
).split()
"""What every run shares; the pool holds the prompts below, with room."""

PROMPTS = (5, 40, 70, 23)
NEW_TOKENS = 9
# Slots of a pool of windows that are never used, by which it differs from the other.
_TAKEN = 5
# (prompt, tokens of it that are attended when the step ends), rows in SGLang's order: chunks, then
# running requests. One chunk without prefix, chunks beside running requests, a chunk with prefix.
_STEPS = (((1, 40), (0, 5)), ((2, 50), (1, 41), (0, 6)), ((2, 70), (3, 23), (1, 42), (0, 7)))


def prompts(vocab: int) -> list[list[int]]:
    """Token ids of the prompts; a function of the vocabulary's size alone."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in PROMPTS]


def start(model: Path, flags: Sequence[str], *, fill: bool) -> Any:
    """SGLang's runner of `model` with `flags`; a process can start one.

    fill  the folder has a config but no weights: draw them (see `draw`)

    Raises whatever stops SGLang at start-up.
    """
    argv = ["--model-path", str(model), *FLAGS, *flags]
    args = prepare_server_args([*argv, *(("--load-format", "dummy") if fill else ())])
    args.resolve_once()
    rank = one_batch.spawn_world_rank(args, tp_rank=0, pp_rank=0)
    one_batch.publish(args, role="scheduler", ranks=one_batch.SpawnRanks(rank, gpu_id=0))
    one_batch._init_process_global_configs()
    # The prompts are token ids.
    one_batch.get_tokenizer = lambda *_, **__: None
    runner, _ = one_batch.load_model(args, PortArgs.init_new(args), 0, 0)
    if fill:
        draw(runner.torch_runner.model)
    _part_slots(runner.torch_runner.token_to_kv_pool_allocator)
    return runner


def _part_slots(allocator: Any) -> None:
    """Where sliding-window layers have a pool of their own, slots of both must not be alike.

    Fresh pools hand out the same ones, and a backend that takes one for the other answers right.
    """
    windows = getattr(allocator, "swa_attn_allocator", None)
    if windows is not None:
        windows.alloc(_TAKEN)


def decode(runner: Any, *, vocab: int) -> Decoded:
    """Greedy answers to the prompts, stepped by hand; raises whatever a step raises."""
    return _Requests(runner, prompts(vocab)).run()


def draw(model: torch.nn.Module) -> None:
    """Random weights that keep logits well apart: a function of the parameters' names and shapes.

    Matrices keep the size of what they multiply, vectors (norms, biases, sinks) scatter around
    what they are.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            seed = int.from_bytes(name.encode()[-6:], "big") % 2**31
            noise = torch.empty(parameter.shape).normal_(
                generator=torch.Generator().manual_seed(seed)
            )
            if parameter.dim() > 1:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(0.2 * noise + (1.0 if "norm" in name else 0.0))


class _Windows:
    """A pool of sliding-window layers, where there is one: it loses what windows have left.

    As SGLang's prefix caches do; what is freed turns NaN, so that whoever reads it is found out.
    """

    def __init__(self, runner: Any) -> None:
        pool = runner.token_to_kv_pool
        self._allocator = runner.token_to_kv_pool_allocator
        self._table = runner.req_to_token_pool.req_to_token
        layers = [m for m in runner.model.modules() if isinstance(m, RadixAttention)]
        self._window = max((layer.sliding_window_size or 0 for layer in layers), default=0)
        self._pool = getattr(pool, "swa_kv_pool", None)
        self._freed: dict[int, int] = {}

    def leave(self, row: int, keys: int) -> None:
        """Request `row` of the table goes on after so many keys."""
        begin, end = self._freed.get(row, 0), keys - self._window
        if self._pool is None or end <= begin:
            return
        slots = self._table[row, begin:end].long()
        gone = self._allocator.translate_loc_from_full_to_swa(slots)
        for buffer in (*self._pool.k_buffer, *self._pool.v_buffer):
            buffer[gone] = torch.nan
        self._allocator.free_swa(slots)
        self._freed[row] = end


class _Requests:
    """The prompts as SGLang's requests, stepped by hand."""

    def __init__(self, runner: Any, ids: list[list[int]]) -> None:
        self._runner, self._ids = runner, [list(one) for one in ids]
        self._reqs = [self._request(i, one) for i, one in enumerate(ids)]
        self._done = [0] * len(ids)
        self._logits: list[NDArray[np.float32]] = []
        self._windows = _Windows(runner.torch_runner)

    @staticmethod
    def _request(index: int, ids: list[int]) -> Any:
        sampling = one_batch.SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS + len(_STEPS))
        request = one_batch.Req(
            rid=str(index),
            origin_input_text="",
            origin_input_ids=array("q", ids),
            sampling_params=sampling,
        )
        request.logprob_start_len = -1
        return request

    def run(self) -> Decoded:
        for rows in _STEPS:
            next_ids, batch = self._extend(rows)
        order = [i for i, _ in _STEPS[-1]]
        for _ in range(NEW_TOKENS):
            next_ids, logits = self._runner.decode(next_ids, batch)
            self._logits.append(logits.float().numpy().copy())
            for row, i in enumerate(order):
                self._ids[i].append(int(next_ids[row]))
                self._leave(i, len(self._ids[i]) - 1)
        tokens = [ids[n:] for ids, n in zip(self._ids, PROMPTS, strict=True)]
        return Decoded(tokens, self._logits)

    def _extend(self, rows: Sequence[tuple[int, int]]) -> tuple[Any, Any]:
        for i, end in rows:
            request = self._reqs[i]
            request.full_untruncated_fill_ids = array("q", self._ids[i])
            request.prefix_len, request.extend_end = self._done[i], end
        next_ids, logits, batch = self._runner.extend([self._reqs[i] for i, _ in rows])
        self._logits.append(logits.float().numpy().copy())
        for row, (i, end) in enumerate(rows):
            if end == len(self._ids[i]):
                self._ids[i].append(int(next_ids[row]))
            self._done[i] = end
            self._leave(i, end)
        return next_ids, batch

    def _leave(self, i: int, keys: int) -> None:
        self._windows.leave(int(self._reqs[i].kv.req_pool_idx), keys)


def decode_transformers(model: Path, *, vocab: int) -> Decoded:
    """The same by transformers' eager attention in float32, without a cache: slow, independent."""
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = []
    with torch.no_grad():
        for ids, steps in zip(prompts(vocab), (12, 12, 10, 10), strict=True):
            have = list(ids)
            for _ in range(steps):
                logits = net(torch.tensor([have]), use_cache=False).logits[0, -1]
                have.append(int(logits.argmax()))
            tokens.append(have[len(ids) :])
    return Decoded(tokens, [])


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what this process prints, C code included, to a file."""
    with path.open("w") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        yield
        sys.stdout.flush()
