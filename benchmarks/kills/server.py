"""A server's side of the exchange, to be killed: `python -m benchmarks.kills.server URL JOURNAL`.

Posts steps, polls the table and runs experiments on made-up steps, as fast as the tuner answers.
What was acknowledged goes into the journal, a line of JSON each, before anything else is sent.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from pod_integrate.builds import native
from pod_integrate.devices.registry import device_named
from pod_integrate.live.client import TunerClient
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import (
    WIRE_VERSION,
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    Pair,
    SeenBucket,
    StepLengths,
)
from pod_integrate.terms.keys import Bucket, Geometry
from pod_integrate.terms.table import ConfigTable
from pod_integrate.terms.trace import WIRE_VERSION as TRACE_VERSION
from pod_integrate.terms.trace import StepRecord, TraceMessage, encode

# As small as the CPU kernel takes, so that a worker's tasks last no longer than their slices.
GEOMETRY = Geometry.uniform((4, 2, 64), "fp32", page_size=1)
_RECORDS, _PART = 16, 4
_DECODES = 2, 4, 8, 16
_AWAY_SECONDS = 0.2


class Server:
    """One life of the server."""

    def __init__(self, url: str, journal: Path) -> None:
        device = device_named("cpu")
        self._name = f"kills/{os.getpid()}-{time.time_ns()}"
        self._random = random.Random(self._name)
        self._active = ActiveTable(GEOMETRY, device.key_of(1), native.build_id("cpu"))
        self._keys: dict[str, Any] = {
            "geometry": str(GEOMETRY),
            "device": str(self._active.device),
            "build": self._active.build,
        }
        self._default = device.default_config(GEOMETRY).to_dict()
        self._client, self._etag = TunerClient(url), ""
        self._reports = httpx.Client(base_url=url, timeout=10.0, trust_env=False)
        self._journal = journal.open("a")

    def live(self) -> None:
        """Until it is killed."""
        for sequence in itertools.count():
            for work in (self._post, self._poll, self._experiment):
                try:
                    work(sequence)
                except httpx.HTTPError:
                    # Killed, or starting: that is what this is about.
                    time.sleep(_AWAY_SECONDS)

    def _note(self, kind: str, *values: Any) -> None:
        self._journal.write(json.dumps([kind, *values]) + "\n")
        self._journal.flush()

    def _post(self, sequence: int) -> None:
        records = [
            StepRecord(
                time=time.time(), step=1 + sequence * _RECORDS + i, q_lens=q_lens, kv_lens=kv_lens,
                step_us=2000.0, attention_us=1000.0, layers=4, config="default", source="default",
            )
            for i, (q_lens, kv_lens) in enumerate(itertools.islice(self._steps(), _RECORDS))
        ]  # fmt: skip
        message = TraceMessage(
            version=TRACE_VERSION, server=self._name, sequence=sequence, **self._keys,
            seen=_RECORDS, dropped=0, table_version=0, configs={"default": self._default},
            records=records,
        )  # fmt: skip
        self._client.post_traces(encode(message))
        self._note("message", self._name, sequence)

    def _poll(self, _sequence: int) -> None:
        answer = self._client.get_table(self._active, self._etag)
        if answer is None:
            return
        self._etag = answer.etag or ""
        table = ConfigTable.from_json(answer.body)
        self._note("table", table.version, table.checksum)

    def _experiment(self, _sequence: int) -> None:
        ask = ExperimentAsk(
            version=WIRE_VERSION, server=self._name, **self._keys,
            buckets=[SeenBucket(bucket=str(b), steps=100, attention_us=1e5) for b in _buckets()],
        )  # fmt: skip
        body = self._client.ask_experiment(ask.encode())
        if body is None:
            return
        experiment = Experiment.decode(body)
        left, wanted = experiment.steps, True
        while left > 0 and wanted:
            count = min(_PART, left)
            left -= count
            wanted = self._report(experiment, count, done=left <= 0)

    def _report(self, experiment: Experiment, count: int, *, done: bool) -> bool:
        pairs = [self._pair(experiment) for _ in range(count)]
        report = ExperimentReport(
            version=WIRE_VERSION, server=self._name, id=experiment.id, outcome="measured",
            pairs=pairs, layers=4, done=done,
        )  # fmt: skip
        answer = self._reports.post(
            f"/v1/experiments/{experiment.id}/report",
            content=report.encode(), headers={"Content-Type": "application/json"},
        )  # fmt: skip
        if answer.is_error or not answer.json()["taken"]:
            return False
        digests = [pair.batch for pair in pairs]
        self._note("pairs", experiment.bucket, experiment.number, experiment.phase, digests)
        return not answer.json()["done"]

    def _pair(self, experiment: Experiment) -> Pair:
        q_lens, kv_lens = next(self._steps(Bucket.parse(experiment.bucket)))
        us = [
            1000.0 / _gain(PodConfig.from_dict(config)) * self._random.lognormvariate(0.0, 0.01)
            for config in (experiment.baseline, experiment.candidate)
        ]
        return Pair(us[0], us[1], StepLengths(q_lens, kv_lens).digest)

    def _steps(self, bucket: Bucket | None = None) -> Iterator[tuple[list[int], list[int]]]:
        """Steps whose lengths hardly ever repeat."""
        while True:
            decodes = self._random.choice(_DECODES)
            kv_lens = [self._random.randrange(260, 500) for _ in range(decodes)]
            step = [1] * decodes, kv_lens
            if bucket is None or Bucket.of(*step) == bucket:
                yield step


def _buckets() -> list[Bucket]:
    return [Bucket.of([1] * n, [380] * n) for n in _DECODES]


def _gain(config: PodConfig) -> float:
    """Made up: some splits are a good deal faster than others, so that there is much to promote."""
    return 1.0 + 0.3 * (config.decode_split_tokens % 7) / 7 + 0.2 * (config.decode.kv_rows % 5) / 5


if __name__ == "__main__":
    Server(sys.argv[1], Path(sys.argv[2])).live()
