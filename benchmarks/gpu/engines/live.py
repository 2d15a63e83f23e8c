"""What does tuning on live steps gain, and what does it cost?

SGLang on `pod` with mixed chunks and CUDA graphs, Llama with random weights, everything sent at
once, again and again. Four engines, one after the other:

  default  no tuner: tokens per second, and attention times of every step
  cost     a tuner, experiments at their default share: tokens per second are the cost of both
  learn    the same tuner, experiments in `--share` of the steps, for `--learn` seconds
  tuned    no tuner, the table that was learned: as `default`

Attention times are the device's, by bucket, in fresh runs without experiments. The gain is weighed
by the time that the default spends in each bucket; a bucket that was not tuned counts as 1.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

import httpx

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.engines.job import Run, engine_arguments, make_model, make_requests, prebuild
from benchmarks.gpu.engines.places import PLACES, REFUSED
from benchmarks.gpu.engines.sglang import Worker, add_load
from pod_integrate.demo.processes import Child
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MIN_STEPS
from pod_integrate.terms.trace import StepRecord

_RUN = Run("pod", "pod", mixed=True)
_POLL_SECONDS = "0.5"
_TUNER_SECONDS = 60.0


class Gain(TypedDict):
    """Of one bucket: its share of the default's time, medians, and their ratio."""

    share: float
    default_us: float
    tuned_us: float
    speedup: float
    steps: list[int]


def by_bucket(records: Iterable[StepRecord]) -> dict[str, list[float]]:
    """Microseconds of attention of every timed step, by bucket."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.attention_us > 0:
            found[str(Bucket.of(record.q_lens, record.kv_lens))].append(record.attention_us)
    return dict(found)


def gain(
    default: dict[str, list[float]], tuned: dict[str, list[float]], entries: Iterable[str]
) -> dict[str, Any]:
    """Default time / tuned time, of each bucket with an entry and of all attention.

    Medians of the steps of a bucket are compared, MIN_STEPS of both at least.
    """
    total = sum(map(sum, default.values()))
    buckets: dict[str, Gain] = {}
    for name in sorted(entries):
        steps = (default.get(name, []), tuned.get(name, []))
        if min(map(len, steps)) >= MIN_STEPS:
            medians = [statistics.median(one) for one in steps]
            buckets[name] = {
                "share": sum(steps[0]) / total, "default_us": medians[0], "tuned_us": medians[1],
                "speedup": medians[0] / medians[1], "steps": [len(one) for one in steps],
            }  # fmt: skip
    left = sum(one["share"] / one["speedup"] for one in buckets.values())
    covered = sum(one["share"] for one in buckets.values())
    return {
        "buckets": buckets,
        "covered_share": covered,
        "speedup": 1.0 / (1.0 - covered + left) if total else None,
    }


def decode_share(default: dict[str, list[float]], entries: Iterable[str]) -> float | None:
    """Share of the time of decode-only steps that lies in tuned buckets."""
    spent = {n: sum(t) for n, t in default.items() if not Bucket.parse(n).prefill_tokens}
    total = sum(spent.values())
    return sum(spent.get(name, 0.0) for name in entries) / total if total else None


class LocalTuner:
    """A tuner of this machine without workers of its own; a context manager."""

    def __init__(self, folder: Path, out: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "pod_integrate.cli", "tuner", "up", "--no-ray"]
        command += ["--workers", "0", "--port", str(port), "--state-dir", str(folder)]
        self._child = Child("tuner", command, log=out / "live_tuner.log")

    def __enter__(self) -> LocalTuner:
        self._child.wait_ready(f"{self.url}/healthz", timeout=_TUNER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def overview(self) -> dict[str, Any]:
        """GET /v1/overview."""
        answer = httpx.get(f"{self.url}/v1/overview", timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def table(self, scope: dict[str, Any]) -> bytes | None:
        """The table in force of a server's scope, None before its first promotion."""
        names = {name: scope[name] for name in ("geometry", "device", "build")}
        answer = httpx.get(f"{self.url}/v1/table", params=names, timeout=30)
        return answer.content if answer.status_code == 200 else None


class LiveRuns:
    """The document under way."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._output = Output(options.out, "live")
        self._times: dict[str, dict[str, list[float]]] = {}
        self._entries: list[str] = []
        names = ("running", "prompts", "longest", "new", "layers", "heads", "device", "share")
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "load": {name: getattr(options, name) for name in (*names, "learn")},
            "rates": {},
            "failed": {},
        }

    def traced(self, name: str, table: Path | None = None) -> None:
        """An engine without a tuner, all of its steps traced."""
        with TraceSink() as sink:
            environment = {"POD_ATTN_TUNER_URL": sink.url, "POD_ATTN_TRACE_SAMPLE": "1"}
            if table is not None:
                environment["POD_ATTN_TABLE"] = str(table)
            self._engine(name, environment | {"POD_ATTN_EXPERIMENTS": "0"})
            self._times[name] = by_bucket(sink.records())
        self._save()

    def learned(self) -> Path | None:
        """The table that a tuner came to by live steps, in a file; None: it promoted nothing."""
        with LocalTuner(self._folder / "state", self._options.out) as tuner:
            self._engine("cost", {"POD_ATTN_TUNER_URL": tuner.url})
            share = {"POD_ATTN_EXPERIMENTS": str(self._options.share)}
            learn = {"seconds": self._options.learn}
            self._engine("learn", {"POD_ATTN_TUNER_URL": tuner.url, **share}, **learn)
            overview = tuner.overview()
            self.document["tuner"] = {
                name: overview[name] for name in ("totals", "tables", "buckets", "decisions")
            }
            body = tuner.table(overview["tables"][0]) if overview["tables"] else None
        self._save()
        if body is None:
            return None
        self._entries = list(json.loads(body)["entries"])
        path: Path = self._options.out / "live_table.json"
        path.write_bytes(body)
        return path

    def _engine(self, name: str, environment: dict[str, str], **more: Any) -> None:
        job: dict[str, Any] = {
            "engine": engine_arguments(_RUN, self._folder / "model", self._options),
            "requests": make_requests(self._options),
            "passes": self._options.passes,
            **more,
        }
        job["warmup"] = [{**request, "at": 0.0} for request in job["requests"][::4]]
        environment = {"POD_ATTN_POLL_SECONDS": _POLL_SECONDS, **environment}
        worker = Worker(
            _RUN, self._folder, self._options.out, module="traces_run", environment=environment
        )
        try:
            found = worker.measure(job, self._options.each + more.get("seconds", 0.0))
            rates = [one["output_tokens_per_second"] for one in found["rates"]]
            self.document["rates"][name] = rates
            print(f"{name}: {statistics.median(rates):.0f} tokens/s", flush=True)
        except RuntimeError as error:
            self.document["failed"][name] = str(error)
            print(f"{name} FAILED: {error}", flush=True)
        finally:
            worker.stop()

    def _save(self) -> None:
        default = self._times.get("default", {})
        if "tuned" in self._times:
            self.document["gain"] = gain(default, self._times["tuned"], self._entries)
        self.document["decode_tuned_share"] = decode_share(default, self._entries)
        self.document["overhead"] = _overhead(self.document["rates"])
        self._output.save(self.document)


def _overhead(rates: dict[str, list[float]]) -> float | None:
    """Share of output tokens per second that traces and experiments cost."""
    if not {"default", "cost"} <= set(rates):
        return None
    return 1 - statistics.median(rates["cost"]) / statistics.median(rates["default"])


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save live.json; ends with an error when a run failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        measurement = LiveRuns(options, Path(name))
        make_model(Path(name) / "model", options)
        prebuild(options)
        measurement.traced("default")
        table = measurement.learned()
        if table is not None:
            measurement.traced("tuned", table)
    document = measurement.document
    for key in ("gain", "decode_tuned_share", "overhead", "failed"):
        print(f"{key}: {json.dumps(document.get(key))}")
    if document["failed"]:
        sys.exit(f"live: failed are {', '.join(document['failed'])}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="live", description=(__doc__ or "").split("\n")[0])
    add_load(parser)
    parser.set_defaults(passes=5, interval=0.0)
    parser.add_argument("--prefill-graphs", choices=("breakable", "disabled"), default="breakable")
    parser.add_argument("--share", type=float, default=0.3, help="of steps while it learns")
    parser.add_argument("--learn", type=float, default=120.0, help="seconds of learning")
    parser.add_argument("--each", type=float, default=150.0, help="most seconds of one engine")
    parser.add_argument("--device", choices=PLACES, default="cuda")
    add_output(parser, refused=REFUSED)
    return parser.parse_args(arguments)
