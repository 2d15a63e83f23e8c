"""What is read of a profile and of traces, and the ratio that is made of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.engines import traces
from benchmarks.gpu.visit import headlines
from pod_integrate.terms.trace import StepRecord


def step(time: float, attention_us: float, q_lens: list[int]) -> StepRecord:
    return StepRecord(
        time=time,
        step=0,
        q_lens=q_lens,
        kv_lens=[9] * len(q_lens),
        step_us=2 * attention_us,
        attention_us=attention_us,
        layers=8,
        config="c",
        source="default",
    )


def work(
    ts: float, microseconds: float, name: str, cat: str = "kernel", stream: int = 7
) -> dict[str, Any]:
    args = {"stream": stream}
    return {"cat": cat, "name": name, "ts": ts, "dur": microseconds, "args": args}


ATTEND = "void pod::pod_kernel<pod::V, 3>(pod::LaunchArguments)"
MERGE = "_ZN3pod12merge_kernelI7VariantEEvNS_15LaunchArgumentsE"


def profiled(folder: Path, events: list[dict[str, Any]]) -> dict[str, Any]:
    """What is read of a profile with these events, as torch writes them: in no order."""
    (folder / "deep").mkdir()
    with gzip.open(folder / "deep" / "1-TP-0.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [{"ph": "M", "name": "process_name"}, *events[::-1]]}, file)
    return traces.profiled(folder)


def test_a_call_lasts_from_its_memset_to_its_merge_and_only_our_kernels_count(
    tmp_path: Path,
) -> None:
    events = [
        work(0.0, 1.0, "Memset (Device)", "gpu_memset"),
        work(2.0, 1.0, "Memset (Device)", "gpu_memset"),
        work(4.0, 10.0, ATTEND),
        work(14.5, 9.0, "copy of another stream", stream=8),
        work(15.0, 2.5, MERGE),
        work(18.0, 99.0, "sm90_xmma_gemm"),
        work(120.0, 5.0, ATTEND),
        work(126.0, 1.0, "Memset (Device)", "gpu_memset"),
        work(5.0, 99.0, "pod_kernel", "cpu_op"),
    ]
    found = profiled(tmp_path, events)
    assert (found["kernels"], found["kernel_us"]) == (3, 17.5)
    assert (found["calls"], found["call_us"]) == (2, 15.5 + 5.0)


def test_a_profile_without_our_kernels_has_no_calls(tmp_path: Path) -> None:
    events = [work(0.0, 1.0, "Memset (Device)", "gpu_memset"), work(2.0, 9.0, "flash_fwd")]
    assert profiled(tmp_path, events) == {"calls": 0, "call_us": 0, "kernels": 0, "kernel_us": 0}


def test_only_steps_of_the_profiled_time_count_and_timeless_ones_are_said() -> None:
    records = [
        step(0.0, 5.0, [1]),
        step(1.0, 7.0, [1, 1]),
        step(1.5, 0.0, [1]),
        step(2.0, 9.0, [4]),
    ]
    told = traces.traced(records, 0.5, 2.0)
    assert (told["steps"], told["steps_timed"], told["decode_steps"]) == (3, 2, 1)
    assert (told["attention_us"], told["decode_attention_us"], told["step_us"]) == (16.0, 7.0, 32.0)


def test_headlines_say_how_far_traces_are_off_and_what_they_cost() -> None:
    document = {
        "agreement": {"traced_over_profiled": 0.97, "steps": 9},
        "overhead": 0.004,
        "overhead_interval": [-0.001, 0.006],
    }
    found = {line[0]: line for line in headlines.headlines({"traces": document})}
    assert found["trace.gpu_time_agreement_pct"][1] == pytest.approx(3.0)
    assert found["trace.gpu_overhead_pct"][1] == pytest.approx(0.4)
    assert found["trace.gpu_overhead_pct"][2].endswith("95 % interval -0.10 to 0.60")
