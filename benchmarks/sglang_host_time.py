"""What SGLang's backend `pod` costs the host: a step's preparation, and each layer's call.

    python benchmarks/sglang_host_time.py

SGLang's own attention kit stands in for a server: a hybrid batch of one chunk and 32 running
requests, and the 32 alone. The kernel is replaced by nothing, so what is left is Python. Times are
CPU time of the process: what else the machine does changes little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
import unittest
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import _results
from pod_integrate.devices.call import Attention, Call
from pod_integrate.live.layer_group import StepPlan

COMMAND = "python benchmarks/sglang_host_time.py"
# Lengths change nothing: the kit computes its reference of them.
_RUNNING, _CHUNK, _CONTEXT = 32, 16, 20
_ROUNDS, _CALLS, _STEPS = 7, 1000, 200


class Nothing(Attention):
    """A kernel that takes no time and writes nothing."""

    def __call__(self, call: Call) -> None:
        """Return at once."""


def fixture(mode: str) -> Any:
    """Of SGLang's kit, for `hybrid` or `decode`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sglang.srt.model_executor.forward_batch_info import ForwardMode
        from sglang.srt.plugins import load_plugins
        from sglang.test.kits.attention_unittest.attention_methods import dense_attention as kit
    load_plugins()
    decode = mode == "decode"
    case = kit.DenseAttentionCase(
        name=mode, backend="pod",
        forward_mode=ForwardMode.DECODE if decode else ForwardMode.EXTEND,
        num_heads=8, num_kv_heads=2, page_size=1,
        prefix_lens=(*(() if decode else (_CONTEXT,)), *(_CONTEXT,) * _RUNNING),
        extend_lens=() if decode else (_CHUNK, *(1,) * _RUNNING),
    )  # fmt: skip
    return kit.build_dense_attention_fixture(
        unittest.TestCase(), case, head_dim=64, device="cpu", dtype=torch.float32
    )


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Median of the rounds, microseconds of one call."""
    found = []
    for _ in range(_ROUNDS):
        begin = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - begin) / times * 1e6)
    return statistics.median(found)


def measure(mode: str, profile: bool) -> dict[str, float]:
    """Microseconds of a step's preparation, and of a layer's call without a kernel."""
    made = fixture(mode)
    backend, batch = made.backend, made.forward_batch
    batch.rids = [str(number) for number in range(len(batch.seq_lens_cpu))]
    layer = next(m for m in made.actual_module.modules() if type(m).__name__ == "RadixAttention")
    group = backend._group(layer)
    heads = layer.tp_q_head_num * layer.qk_head_dim
    rows = _RUNNING + (0 if mode == "decode" else _CHUNK)
    q = torch.zeros(rows, heads)

    def prepare() -> None:
        backend.init_forward_metadata(batch)
        backend._plan(group)

    def attend() -> None:
        backend.forward_extend(q, None, None, layer, batch)

    step = cpu_us(prepare, _STEPS)
    plan = StepPlan(Nothing(group.geometry, group.default))
    backend.forward_metadata.plans[group] = plan
    attend()
    if profile:
        _show(attend)
    return {"step_us": step, "layer_us": cpu_us(attend, _CALLS)}


def _show(work: Callable[[], object]) -> None:
    watch = cProfile.Profile()
    watch.enable()
    for _ in range(_CALLS):
        work()
    watch.disable()
    pstats.Stats(watch).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", action="store_true", help="show where a layer's time goes")
    options = parser.parse_args()
    with torch.inference_mode():
        found = {mode: measure(mode, options.profile) for mode in ("hybrid", "decode")}
    path = _results.write("sglang_host_time", {"command": COMMAND, "modes": found})
    for mode, times in found.items():
        print(f"{mode}: {times['step_us']:.1f} us a step, {times['layer_us']:.1f} us a layer")
    print(path)


if __name__ == "__main__":
    main()
