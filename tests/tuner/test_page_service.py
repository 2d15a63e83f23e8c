"""The page on the real service: traces posted, pairs reported, a promotion shown as it happens."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from page_fixtures import Watched
from playwright.sync_api import expect

from pod_integrate.devices.registry import target_of
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.trace import WIRE_VERSION, StepRecord, TraceMessage, encode
from tuner.core import Tuner
from tuner.host.listening import listen, url_of
from tuner.host.opening import open_tuner
from tuner.host.thread import TunerThread
from tuner.http.api import create_app
from tuner.messages import Pair, Report, WorkerInfo
from tuner.settings import load

pytestmark = pytest.mark.browser
GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
DEVICE = DeviceKey("test-cpu", "avx2", 2)
BUILD = "cpu-0123456789"
WORKER = WorkerInfo(id="replayer", device=str(DEVICE), build=BUILD)
BUCKET = "p256@1k+d8@512"


class Service:
    """Core and HTTP of a tuner over a new database, without workers of its own."""

    def __init__(self, folder: Path) -> None:
        settings = load(data_dir=folder, port=0, workers=0, seed=7)
        self.core = TunerThread(lambda: open_tuner(settings))
        listener = listen(settings)
        self.url = url_of(listener)
        app = create_app(self.core)
        self.feed = app.state.feed
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def close(self) -> None:
        self.feed.stop()
        self.server.should_exit = True
        self.thread.join(timeout=10)
        self.core.close()

    def post(self, sequence: int) -> None:
        config = target_of(DEVICE).default_config(GEOMETRY)
        records = [
            StepRecord(
                time=1000.0 + sequence, step=sequence, q_lens=[256] + [1] * 8,
                kv_lens=[1024] + [512 + 10 * sequence + i] * 8, step_us=9000.0,
                attention_us=4000.0, layers=4, config="default", source="default",
            )
            for i in range(10)
        ]  # fmt: skip
        message = TraceMessage(
            version=WIRE_VERSION, server="sglang-0", sequence=sequence, geometry=str(GEOMETRY),
            device=str(DEVICE), build=BUILD, seen=10, dropped=0, table_version=0,
            configs={"default": config.to_dict()}, records=records,
        )  # fmt: skip
        answer = httpx.post(
            f"{self.url}/v1/traces", content=encode(message),
            headers={"content-type": "application/x-msgpack"},
        )  # fmt: skip
        assert answer.status_code == 202, answer.text

    def measure_until_promoted(self) -> None:
        """Play a worker for which one split doubles the speed."""
        for _ in range(400):
            task = self.core.call(Tuner.next_task, WORKER)
            if task is None or self.core.tuner.tables.all():
                break
            fast = task.candidate["decode_split_tokens"] != task.baseline["decode_split_tokens"]
            pairs = [
                Pair(1000.0 + i, 800.0 if fast else 1010.0 + i, lengths.digest)
                for lengths in task.batches
                for i in range(task.step_pairs)
            ]
            report = Report(task=task.id, worker=WORKER.id, outcome="measured", pairs=pairs)
            self.core.call(Tuner.report, report)
        assert self.core.tuner.tables.all()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.close()


def test_page_follows_the_real_service_from_empty_to_a_promotion(
    service: Service, watched: Watched
) -> None:
    page = watched.page
    page.goto(service.url)
    expect(page.locator("#command")).to_contain_text(service.url)

    for sequence in range(4):
        service.post(sequence)
    expect(page.get_by_role("rowheader", name="sglang-0")).to_be_visible()
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name=BUCKET))
    expect(row).to_contain_text("no worker")

    service.measure_until_promoted()
    expect(row).to_contain_text("promoted")
    expect(page.locator("#servers-note")).to_contain_text("1 behind the published table")
    expect(page.locator("#saved .hero")).to_contain_text("%")
    expect(page.locator("#decisions")).to_contain_text("promote")

    page.get_by_role("button", name=BUCKET).click()
    page.wait_for_selector(".detail-body svg .trial.promoted")
    expect(page.locator(".diff .changed").first).to_be_visible()
    assert watched.complaints == []


def test_links_of_the_page_lead_to_documents(service: Service) -> None:
    links = re.findall(r'(?:href|src)="(/[^"]*)"', httpx.get(service.url).text)
    assert {"/docs", "/metrics", "/static/app.js"} <= set(links)
    for link in links:
        assert httpx.get(service.url + link).status_code == 200, link
