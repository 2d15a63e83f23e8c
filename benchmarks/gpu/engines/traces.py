"""Do a server's traces tell the truth, and what do they cost?

SGLang on `pod` with mixed chunks and CUDA graphs, Llama with random weights, everything sent at
once. Once with every step traced and torch's profiler beside it: the traces' attention times
against the profiler's, over the same steps. Then two engines side by side, one without tracing and
one with it as a user has it (default share, default period), that answer in turns: the overhead is
the median ratio of output tokens per second of neighbouring passes. A call lasts from the begin
of its first kernel or memset to the end of its last one: that is what a step waits for, and what
the traces are to tell.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.engines.job import Run, engine_arguments, make_model, make_requests, prebuild
from benchmarks.gpu.engines.sglang import Worker, add_load, add_passes
from benchmarks.gpu.engines.turns import paired_cost, side_by_side
from pod_integrate.settings import Settings
from pod_integrate.terms.trace import StepRecord

# Kernels of ours by their mangled or plain names: attention, and the merge of its splits.
_OURS = re.compile(r"pod_kernel|merge_kernel")
_WORK = ("kernel", "gpu_memset", "gpu_memcpy")
# The profiled engine alone: so that its last records are there when they are counted.
_POLL_SECONDS = "0.5"
_RUN = Run("pod", "pod", mixed=True)


def profiled(folder: Path) -> dict[str, Any]:
    """Attention in the profiler's traces in `folder`.

    calls, call_us      attention calls, and the sum of what each lasted
    kernels, kernel_us  kernels of ours, and the sum of their own times: less by the gaps in calls
    """
    spans: list[float] = []
    kernels: list[float] = []
    for path in folder.rglob("*.trace.json.gz"):
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
        work = sorted((e for e in events if e.get("cat") in _WORK), key=_place)
        kernels += [float(event["dur"]) for event in work if _is_ours(event)]
        # Runs of neighbours on one stream: what another stream does meanwhile parts no call.
        for (near, _), call in itertools.groupby(work, key=lambda e: (_may_be_ours(e), _stream(e))):
            if near:
                spans += _span(list(call))
    return {
        "calls": len(spans), "call_us": sum(spans),
        "kernels": len(kernels), "kernel_us": sum(kernels),
    }  # fmt: skip


def _stream(event: dict[str, Any]) -> str:
    return str(event.get("args", {}).get("stream", ""))


def _place(event: dict[str, Any]) -> tuple[str, float]:
    return _stream(event), float(event["ts"])


def _is_ours(event: dict[str, Any]) -> bool:
    return event["cat"] == "kernel" and _OURS.search(event["name"]) is not None


def _may_be_ours(event: dict[str, Any]) -> bool:
    return event["cat"] == "gpu_memset" or _is_ours(event)


def _span(run: list[dict[str, Any]]) -> list[float]:
    """Of events next to each other: how long our call lasted; empty when there is none."""
    ours = [index for index, event in enumerate(run) if _is_ours(event)]
    if not ours:
        return []
    # The memset of tickets, if any, goes right before; others belong to whoever came earlier.
    call = run[max(0, ours[0] - 1) : ours[-1] + 1]
    return [max(float(e["ts"]) + float(e["dur"]) for e in call) - float(call[0]["ts"])]


def traced(records: list[StepRecord], begin: float, end: float) -> dict[str, Any]:
    """What the records of steps that began between two Unix times say."""
    inside = [r for r in records if begin <= r.time <= end]
    timed = [r for r in inside if r.attention_us > 0]
    decode_only = [r for r in timed if max(r.q_lens) == 1]
    return {
        "steps": len(inside),
        "steps_timed": len(timed),
        "attention_us": sum(r.attention_us for r in timed),
        "step_us": sum(r.step_us for r in timed),
        "decode_steps": len(decode_only),
        "decode_attention_us": sum(r.attention_us for r in decode_only),
    }


class TraceRuns:
    """The document under way."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._output = Output(options.out, "traces")
        names = ("running", "prompts", "longest", "new", "layers", "heads", "device")
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "load": {name: getattr(options, name) for name in names},
            "rates": {"off": [], "on": []},
            "failed": {},
        }

    def rates(self) -> None:
        """Two engines in turns, tracing off and on: tokens per second of each pass."""
        rates: dict[str, list[float]] = {"off": [], "on": []}

        def each(name: str, one: dict[str, float]) -> None:
            rates[name].append(one["output_tokens_per_second"])
            self.document["rates"] = rates
            rounds = min(map(len, rates.values()))
            if rounds:
                found = paired_cost(*(some[:rounds] for some in rates.values()))
                self.document["overhead"] = found["cost"]
                self.document["overhead_interval"] = found["interval"]
            self._output.save(self.document)

        with TraceSink() as sink:
            environments: dict[str, dict[str, str]] = {
                "off": {},
                "on": {"POD_ATTN_TUNER_URL": sink.url},
            }
            try:
                side_by_side(
                    _RUN, self._job(), environments, (self._folder, self._options.out),
                    passes=self._options.passes, limit=self._options.each, each=each,
                )  # fmt: skip
            except RuntimeError as error:
                self._failed("rates", error)
            self.document["records"] = len(sink.records())
        self._output.save(self.document)

    def agreement(self) -> None:
        """One engine with every step traced, and a profiled pass."""
        environment = {"POD_ATTN_POLL_SECONDS": _POLL_SECONDS, "POD_ATTN_TRACE_SAMPLE": "1"}
        with TraceSink() as sink:
            environment["POD_ATTN_TUNER_URL"] = sink.url
            worker = Worker(
                _RUN, self._folder, self._options.out, module="traces_run", environment=environment
            )
            try:
                job = self._job() | {"profile": str(self._folder / "profile")}
                found = worker.measure(job, self._options.each)
            except RuntimeError as error:
                self._failed("profiled", error)
                return
            finally:
                worker.stop()
            records = sink.records()
        print(f"profiled: {len(records)} records", flush=True)
        kernels = profiled(Path(found["profile"]["folder"]))
        told = traced(records, *found["profile"]["unix"])
        self.document["agreement"] = told | kernels
        if kernels["calls"]:
            ratio = told["attention_us"] / kernels["call_us"]
            self.document["agreement"]["traced_over_profiled"] = ratio
        self._output.save(self.document)

    def _job(self) -> dict[str, Any]:
        requests = make_requests(self._options)
        return {
            "engine": engine_arguments(_RUN, self._folder / "model", self._options),
            "requests": requests,
            "warmup": [{**request, "at": 0.0} for request in requests[::4]],
        }

    def _failed(self, name: str, error: RuntimeError) -> None:
        self.document["failed"][name] = str(error)
        self._output.save(self.document)
        print(f"{name} FAILED: {error}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save traces.json; ends with an error when a run failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        measurement = TraceRuns(options, Path(name))
        make_model(Path(name) / "model", options)
        prebuild(options)
        if options.agreement:
            measurement.agreement()
        measurement.rates()
    document = measurement.document
    for key in ("agreement", "rates", "overhead", "overhead_interval", "failed"):
        print(f"{key}: {json.dumps(document.get(key))}")
    if document["failed"]:
        sys.exit(f"traces: failed are {', '.join(document['failed'])}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    default = Settings.model_fields["trace_sample"].default
    parser = argparse.ArgumentParser(
        prog="traces", description=(__doc__ or "").split("\n")[0] + f" Default share: {default}."
    )
    add_load(parser)
    add_passes(parser)
    parser.set_defaults(passes=12, interval=0.0)
    parser.add_argument("--prefill-graphs", choices=("breakable", "disabled"), default="breakable")
    parser.add_argument(
        "--agreement", action=argparse.BooleanOptionalAction, default=True,
        help="the profiled engine first",
    )  # fmt: skip
    parser.add_argument("--each", type=float, default=150.0, help="most seconds of one engine")
    refused = "SGLang runs its whole model, and the profiler is of GPUs"
    add_output(parser, refused={"emulator": refused})
    options = parser.parse_args(arguments)
    options.device = "cuda"
    return options
