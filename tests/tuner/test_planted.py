"""What the live part of the GPU benchmarks does to a tuner, over HTTP to a real core."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_support import Served
from live_support import LiveServer
from tuner_support import BUCKET, DEFAULT, SCOPE, STEPS, message, record

from benchmarks.gpu.engines.live_tuner import LocalTuner
from pod_integrate.terms.experiment import Experiment
from tuner.core import Tuner

POOR = -0.25


class OverHttp(LiveServer):
    """As a LiveServer, of a core that another thread has."""

    def __init__(self, url: str) -> None:
        self._remote = _Remote(url)
        super().__init__(self._remote, lambda config: POOR)  # type: ignore[arg-type]

    def close(self) -> None:
        self._remote.client.close()


class _Remote:
    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url)

    def next_experiment(self, ask: object) -> Experiment | None:
        answer = self.client.post("/v1/experiments", content=ask.encode(), headers=_JSON)  # type: ignore[attr-defined]
        return Experiment.decode(answer.content) if answer.status_code == 200 else None

    def report_experiment(self, told: object) -> object:
        path = f"/v1/experiments/{told.id}/report"  # type: ignore[attr-defined]
        answer = self.client.post(path, content=told.encode(), headers=_JSON)  # type: ignore[attr-defined]
        answer.raise_for_status()
        return _Noted(**answer.json())


class _Noted:
    def __init__(self, taken: bool, done: bool) -> None:
        self.taken, self.done = taken, done


_JSON = {"Content-Type": "application/json"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, "")
    yield made
    made.stop()


def test_a_planted_config_is_in_force_until_its_steps_say_that_it_is_slow(served: Served) -> None:
    served.core.call(Tuner.ingest, message(records=[record(i) for i in range(STEPS)]))
    tuner, server = LocalTuner.__new__(LocalTuner), OverHttp(served.url)
    tuner.url = served.url
    # The default, then one that is slow: pruned early, but its speed is known.
    server.work(rounds=2)
    assert tuner.table() is None
    planted = tuner.plant()
    assert planted is not None and planted.bucket == BUCKET
    assert planted.speedup == pytest.approx(0.78, abs=0.05)
    assert tuner.steps(BUCKET) >= STEPS
    entry = served.tuner.tables.all()[SCOPE].entries
    assert [one.config != DEFAULT for one in entry.values()] == [True]
    assert not tuner.rolled_back(planted)
    server.work(rounds=1)
    assert not served.tuner.tables.all()[SCOPE].entries
    # The overview is made anew some time later.
    until = time.monotonic() + 20.0
    while not tuner.rolled_back(planted):
        assert time.monotonic() < until
        time.sleep(0.05)
    server.close()
