"""Fixtures: one browser and one stand-in service per module for the page, a core and its clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_support import Served
from page_fixtures import CHROMIUM_ARGS, FakeTuner, Watched, recorded_overview
from playwright.sync_api import Browser, expect, sync_playwright
from tuner_support import Clock, make_tuner

from tuner.core import Tuner

# Upper bounds only: a loaded machine takes its time.
_PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no `chromium` on PATH: the page cannot be opened")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_server() -> Iterator[FakeTuner]:
    fake = FakeTuner(recorded_overview())
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def fake_tuner(page_server: FakeTuner) -> FakeTuner:
    page_server.publish(recorded_overview())
    return page_server


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(_PATIENCE_MS)
    expect.set_options(timeout=_PATIENCE_MS)
    yield Watched(context.new_page())
    context.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tuner(tmp_path: Path, clock: Clock) -> Iterator[Tuner]:
    made = make_tuner(tmp_path, clock)
    yield made
    made.close()


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(tmp_path, getattr(request, "param", ""))
    yield made
    made.stop()


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as made:
        yield made
