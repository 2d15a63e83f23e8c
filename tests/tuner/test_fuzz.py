"""Nothing that anybody sends makes the service fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from tuner_support import make_tuner, message
from wire_schema import plain

from benchmarks import fuzz
from tuner.host.thread import TunerThread
from tuner.http.api import create_app


def test_no_request_is_answered_with_a_failure(tmp_path: Path) -> None:
    core = TunerThread(lambda: make_tuner(tmp_path))
    app = create_app(core)
    counts, failures = asyncio.run(fuzz.run(app, plain(message()), requests=800, seed=1))
    assert not failures, failures[0]
    assert counts[202] > 5 and counts[400] > 50 and counts[200] > 10

    async def healthy() -> int:
        transport = httpx.ASGITransport(create_app(core))
        async with httpx.AsyncClient(transport=transport, base_url="http://tuner") as client:
            return (await client.get("/healthz")).status_code

    assert asyncio.run(healthy()) == 200
    core.tuner.archive.rotate(now=core.tuner.clock(), force=True)
    core.close()
