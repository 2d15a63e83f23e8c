"""A tuner of this machine for the live part: killed, asked, and made to serve what is poor."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from pod_integrate.demo.ports import free_port
from pod_integrate.demo.processes import Child
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import MIN_STEPS, ConfigTable, Evidence, TableEntry

_READY_SECONDS = 60.0
# Buckets whose trials are kept for a picture of the page.
_SHOWN = 12
# What is planted is so much slower: surely poor, and no config that stalls a server.
_POOR = (0.4, 0.92)
_SCOPE = ("geometry", "device", "build")


class Planted(NamedTuple):
    """A poor config in force.

    speedup  when it was tried
    before   times of the bucket's roll backs until then
    """

    bucket: str
    speedup: float
    before: frozenset[str]


class LocalTuner:
    """Without workers of its own; a context manager."""

    def __init__(self, folder: Path, out: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "pod_integrate.cli", "tuner", "up", "--no-ray"]
        self._command += ["--workers", "0", "--port", str(port), "--state-dir", str(folder)]
        self._out, self._starts = out, 0
        self._child = self._start()

    def __enter__(self) -> LocalTuner:
        self._child.wait_ready(f"{self.url}/healthz", timeout=_READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def kill(self) -> float:
        """SIGKILL it, and start it again over what it had stored; seconds until it answers."""
        self._child.kill()
        self._child = self._start()
        return self._child.wait_ready(f"{self.url}/healthz", timeout=_READY_SECONDS)

    def _start(self) -> Child:
        self._starts += 1
        return Child("tuner", self._command, log=self._out / f"live_tuner_{self._starts}.log")

    def overview(self) -> dict[str, Any]:
        """GET /v1/overview."""
        found: dict[str, Any] = self._get("/v1/overview").json()
        return found

    def page(self) -> dict[str, Any]:
        """What the page shows: the overview, and the trials of the heaviest buckets."""
        overview = self.overview()
        shown = overview["buckets"][:_SHOWN]
        return {"overview": overview, "trials": {one["bucket"]: self.trials(one) for one in shown}}

    def trials(self, bucket: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/trials of an element of the overview's `buckets`."""
        found: dict[str, Any] = self._get(
            "/v1/trials", {name: bucket[name] for name in (*_SCOPE, "bucket")}
        ).json()
        return found

    def table(self) -> bytes | None:
        """The first table in force, None before a promotion."""
        tables = self.overview()["tables"]
        if not tables:
            return None
        return self._get("/v1/table", {name: tables[0][name] for name in _SCOPE}).content

    def plant(self) -> Planted | None:
        """Put a config in force that was slower when it was tried; None where none was.

        As an imported table does: in the heaviest bucket in which such a config was tried.
        """
        for bucket in self.overview()["buckets"]:
            poor = slowest(self.trials(bucket)["trials"])
            if poor is None:
                continue
            found = Planted(bucket["bucket"], poor["speedup"], self._rollbacks(bucket["bucket"]))
            table = json.loads(poor_table(bucket, poor).to_json(checksum=True))
            order = {"who": "benchmark", "why": "a bad table", "table": table}
            httpx.post(f"{self.url}/v1/table", json=order, timeout=30).raise_for_status()
            return found
        return None

    def steps(self, bucket: str) -> int:
        """That a bucket has had, as far as traces have arrived."""
        found = (one["steps"] for one in self.overview()["buckets"] if one["bucket"] == bucket)
        return int(next(found, 0))

    def rolled_back(self, planted: Planted) -> bool:
        """Whether the tuner has taken a planted config back."""
        return self._rollbacks(planted.bucket) != planted.before

    def _rollbacks(self, bucket: str) -> frozenset[str]:
        return frozenset(
            one["time"] for one in self.overview()["decisions"]
            if (one["kind"], one["bucket"]) == ("rollback", bucket)
        )  # fmt: skip

    def _get(self, path: str, params: dict[str, str] | None = None) -> httpx.Response:
        answer = httpx.get(f"{self.url}{path}", params=params, timeout=30)
        answer.raise_for_status()
        return answer


def slowest(trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The slowest of what is poor but bearable, None where nothing is."""
    low, high = _POOR
    poor = [t for t in trials if t["speedup"] is not None and low <= t["speedup"] <= high]
    return min(poor, key=lambda trial: trial["speedup"], default=None)


def poor_table(bucket: dict[str, Any], trial: dict[str, Any]) -> ConfigTable:
    """A table that claims the opposite of what was measured of a trial, an element of /v1/trials.

    bucket  an element of the overview's `buckets`
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    evidence = Evidence(
        pairs=MIN_STEPS, steps=MIN_STEPS, median_speedup=1.1, lower_bound=1.05, confidence=0.95,
        method="live", measured_at=now, build=bucket["build"], trial=trial["number"],
    )  # fmt: skip
    entry = TableEntry(PodConfig.from_dict(trial["config"]), evidence)
    return ConfigTable(
        version=1, geometry=Geometry.parse(bucket["geometry"]),
        device=DeviceKey.parse(bucket["device"]), build=bucket["build"], updated=now,
        entries={Bucket.parse(bucket["bucket"]): entry},
    )  # fmt: skip
