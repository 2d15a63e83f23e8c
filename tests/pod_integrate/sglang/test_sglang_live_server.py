"""A real server and a real tuner without workers: what servers measure on their own steps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.engines.sglang_server import (
    VARIANTS,
    explain,
    mismatches,
    sglang_server,
    wait_ready,
)
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.replay.requests import Request
from tuner.host.service import run_tuner
from tuner.settings import load

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
SEED = 0
# Few steps of prefill and many of decode: most of them are of one bucket.
REQUESTS = [Request(0.0, 60 + n, 150) for n in range(6)]
ROUNDS = 20


@contextlib.contextmanager
def tuner_without_workers(folder: Path) -> Iterator[httpx.Client]:
    """A client of a tuner in this process."""
    phases: dict[str, str] = {}
    ready, stop = threading.Event(), threading.Event()

    def on_phase(phase: str, detail: str) -> None:
        phases[phase] = detail
        if phase == "ready":
            ready.set()

    settings = load(data_dir=folder, database_url="", host="127.0.0.1", port=0, workers=0)
    how = {"on_phase": on_phase, "ray": False, "stop": stop}
    thread = threading.Thread(target=run_tuner, args=(settings,), kwargs=how)
    thread.start()
    try:
        assert ready.wait(60)
        with httpx.Client(base_url=phases["ready"], timeout=30, trust_env=False) as client:
            yield client
    finally:
        stop.set()
        thread.join(60)


def test_experiments_on_live_steps_reach_the_tuner_and_change_no_answer(tmp_path: Path) -> None:
    model = make_demo_model(tmp_path / "llama", layers=4)
    with tuner_without_workers(tmp_path / "tuner") as tuner:
        env = {
            "POD_ATTN_TUNER_URL": str(tuner.base_url),
            "POD_ATTN_TRACE_SAMPLE": "1",
            "POD_ATTN_EXPERIMENTS": "1",
            "POD_ATTN_POLL_SECONDS": "0.2",
        }
        kind = VARIANTS["mixed"]
        kind = kind._replace(flags=(*kind.flags, "--enable-metrics", "--disable-radix-cache"))
        with sglang_server(model, kind, log=tmp_path / "pod.log", env=env) as server:
            wait_ready(server)
            expected = server.answers(REQUESTS, seed=SEED)

            def measured() -> dict[tuple[str, int], dict[str, Any]]:
                return {
                    (row["bucket"], trial["number"]): trial
                    for row in tuner.get("/v1/overview").json()["buckets"]
                    for trial in tuner.get("/v1/trials", params=keys_of(row)).json()["trials"]
                    if trial["pairs"] and trial["state"] == "complete"
                }

            candidates: set[tuple[str, int]] = set()
            for _ in range(ROUNDS):
                answers = server.answers(REQUESTS, seed=SEED)
                found = mismatches(server, REQUESTS, expected, answers, seed=SEED)
                assert found == [], explain(found, len(REQUESTS))
                # A bucket's trial 0 is the default against itself.
                candidates = {place for place in measured() if place[1] > 0}
                if candidates:
                    break
            assert candidates
            events = httpx.get(f"{server.url}/metrics", timeout=30).text
            assert 'pod:tuner_events_total{event="experiment_pairs"' in events
        overview = tuner.get("/v1/overview").json()
        assert [d for d in overview["decisions"] if d["kind"] == "mismatch"] == []


def keys_of(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("geometry", "device", "build", "bucket")}
