"""The CPU as the kernel sees it: name, instruction set, threads."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path

import torch

from pod_integrate import settings
from pod_integrate.errors import SettingsError

# Best first; the index is what the native library takes.
ISAS = ("avx512", "avx2", "portable")
_AVX2 = {"avx2", "fma", "f16c"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def num_threads() -> int:
    """Threads the CPU kernel uses: POD_ATTN_THREADS, else torch.get_num_threads()."""
    forced = os.environ.get("POD_ATTN_THREADS")
    return _forced_threads(forced) if forced else torch.get_num_threads()


def isa() -> str:
    """Instruction set of the CPU kernel: the best this machine has, or POD_ATTN_ISA."""
    return _isa(os.environ.get("POD_ATTN_ISA") or None)


@functools.lru_cache(maxsize=8)
def _forced_threads(value: str) -> int:
    # The whole environment is parsed so that one place knows the limits; `value` keys the cache.
    threads = settings.load().threads
    assert threads is not None, value
    return threads


@functools.lru_cache(maxsize=8)
def _isa(forced: str | None) -> str:
    best = _best_isa()
    if forced is None:
        return best
    wanted = settings.load().isa
    assert wanted is not None
    if ISAS.index(wanted) < ISAS.index(best):
        raise SettingsError(
            f"POD_ATTN_ISA={wanted}: this CPU offers {best} at most; unset it or choose a lower one"
        )
    return wanted


def _best_isa() -> str:
    flags = set(_cpuinfo().get("flags", "").split())
    if platform.machine() == "x86_64" and flags >= _AVX512:
        return "avx512"
    if platform.machine() == "x86_64" and flags >= _AVX2:
        return "avx2"
    return "portable"


@functools.lru_cache(maxsize=1)
def cpu_name() -> str:
    """Of this machine, as keys print it."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine() or "cpu"
    return printable(name) or "cpu"


def printable(name: str) -> str:
    """A processor's name as keys print it; may be empty."""
    name = re.sub(r"\((?:r|tm)\)", "", name.lower())
    return re.sub(r"[^a-z0-9_.+]+", "-", name).strip("-._+")[:80].rstrip("-")


@functools.lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """First processor's fields; empty where the system has no /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
