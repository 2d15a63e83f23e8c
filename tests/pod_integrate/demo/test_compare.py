"""Tuned against default: what the table says is what runs, unlisted buckets count as one."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from pod_integrate import native
from pod_integrate.defaults import default_config
from pod_integrate.demo import compare
from pod_integrate.device import device_key
from pod_integrate.errors import PodAttentionError
from pod_integrate.keys import Bucket, Geometry
from pod_integrate.table import ConfigTable, TableEntry
from pod_integrate.testing.tables import make_evidence
from tuner.bench import OpBench
from tuner.model import Pair

GEOMETRY = Geometry(
    num_q_heads=4, num_kv_heads=2, head_dim=32, dtype="fp32", kv_dtype="fp32", page_size=1
)
EVIDENCE = make_evidence("x")
HYBRID, DECODE = Bucket.of([32, 1], [64, 64]), Bucket.of([1] * 64, [4096] * 64)


@pytest.fixture
def scope() -> dict[str, str]:
    return {
        "geometry": str(GEOMETRY),
        "device": str(device_key(torch.device("cpu"))),
        "build": native.build_id("cpu"),
    }


@pytest.fixture
def tuner(scope: dict[str, str]) -> Iterator[str]:
    device = device_key(torch.device("cpu"))
    tuned = dataclasses.replace(default_config(device, GEOMETRY), strategy="serial")
    table = ConfigTable(
        version=3,
        geometry=GEOMETRY,
        device=device,
        build=scope["build"],
        updated="2026-01-01T00:00:00Z",
        entries={HYBRID: TableEntry(tuned, EVIDENCE)},
    )
    samples = {
        "buckets": [
            {
                "bucket": str(HYBRID),
                "time_share": 0.6,
                "samples": [{"q_lens": [32, 1], "kv_lens": [64, 64]}],
            },
            {
                "bucket": str(DECODE),
                "time_share": 0.3,
                "samples": [{"q_lens": [1], "kv_lens": [4096]}],
            },
        ]
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_table = self.path.startswith("/v1/table")
            body = table.to_json() if is_table else json.dumps(samples).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep test output quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_speedup_weighs_buckets_by_time_and_unlisted_ones_count_as_one(
    tuner: str, scope: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def pairs(_bench: Any, baseline: Any, candidate: Any, *_: Any, **__: Any) -> list[Pair]:
        ran.extend([baseline.strategy, candidate.strategy])
        return [Pair(4000.0, 2000.0)] * 5

    monkeypatch.setattr(OpBench, "pairs", pairs)
    result = compare.compare_with_default(tuner, scope, seconds=1.0)
    assert ran == ["fused", "serial"]
    assert [row.speedup for row in result.buckets] == [2.0, 1.0]
    assert result.covered == pytest.approx(0.9) and result.steps == 1
    assert result.speedup == pytest.approx(0.9 / (0.6 / 2 + 0.3))


def test_real_op_runs_under_both_configs(tuner: str, scope: dict[str, str]) -> None:
    result = compare.compare_with_default(tuner, scope, seconds=0.2)
    assert result.buckets[0].default_us > 0 and result.buckets[0].tuned_us > 0


def test_table_of_another_machine_is_refused(tuner: str, scope: dict[str, str]) -> None:
    with pytest.raises(PodAttentionError, match="compare on that machine"):
        compare.compare_with_default(tuner, scope | {"build": "cpu-0000000000"}, seconds=1.0)


def test_silent_tuner_is_named(scope: dict[str, str]) -> None:
    with pytest.raises(PodAttentionError, match="did not answer /v1/table"):
        compare.compare_with_default("http://127.0.0.1:9", scope, seconds=1.0)
