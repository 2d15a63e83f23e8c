"""The order in which files of tests start, so that no worker ends alone with a long one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TESTS = Path(__file__).resolve().parents[1]
# Files that take half a minute and more, the longest first; but those that start servers take
# turns with those that compute, because servers of two files are more than a machine's memory.
LONG = (
    "pod_integrate/sglang/test_sglang_variants.py",
    "kernels/test_mutations.py",
    "pod_integrate/sglang/test_sglang_server.py",
    "pod_integrate/hf/test_hf_equal.py",
    "tuner/test_service.py",
    "kernels/test_emulated_kernel.py",
    "pod_integrate/sglang/test_sglang_live_server.py",
    "pod_integrate/sglang/test_sglang_families.py",
    "pod_integrate/hf/test_hf_live.py",
    "kernels/test_emulated_bytes.py",
    "deployments/test_ray_app.py",
    "kernels/test_emulated_accuracy.py",
    "tuner/test_core_calls.py",
    "kernels/test_emulator.py",
    "test_wheel.py",
    "pod_integrate/hf/test_hf_docs.py",
    "bench/test_gpu_hf.py",
    "pod_integrate/sglang/test_sglang_backend.py",
    "pod_integrate/model/test_model_simulate.py",
    "kernels/test_emulated_pair.py",
    "bench/test_kills.py",
)
_PLACES = {TESTS / name: place for place, name in enumerate(LONG)}


def long_first(tests: Iterable[T], file: Callable[[T], Path]) -> list[T]:
    """`tests` with those of LONG first, in its order; the others stay in theirs."""
    return sorted(tests, key=lambda test: _PLACES.get(file(test), len(LONG)))
