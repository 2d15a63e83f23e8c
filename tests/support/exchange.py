"""A tuner that answers from memory, and what a server sends and gets."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import torch

from pod_integrate.live.recorder import Recorder
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.trace import TraceMessage, decode
from support.tables import make_table

GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
DEVICE = DeviceKey("test-cpu", "avx2", 2)
BUILD = "cpu-0000000000"
TILE = TileConfig(q_rows=16, kv_rows=32)
CONFIG = PodConfig(prefill=TILE, decode=TILE)
BUCKET = Bucket.parse("p64@64+d8@128")
Handler = Callable[[httpx.Request], httpx.Response]


def table(version: int = 1, *, build: str = BUILD, config: PodConfig = CONFIG) -> bytes:
    made = make_table(
        config, [BUCKET], geometry=GEOMETRY, device=DEVICE, build=build, version=version
    )
    return made.to_json()


def record_steps(recorder: Recorder, count: int) -> None:
    batch = HybridBatch.build(
        [4, 1],
        [4, 9],
        page_indices=torch.zeros(18, dtype=torch.int32),
        page_starts=[0, 9],
        page_size=1,
    )
    for _ in range(count):
        step = recorder.begin(batch, CONFIG, "default")
        assert step is not None
        recorder.end(step)


class Tuner:
    """Answers from memory; `handler` replaces one path's answer."""

    def __init__(self) -> None:
        self.messages: list[TraceMessage] = []
        self.requests: list[httpx.Request] = []
        self.handlers: dict[str, Handler] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path in self.handlers:
            return self.handlers[request.url.path](request)
        if request.url.path == "/v1/traces":
            self.messages.append(decode(request.read()))
            return httpx.Response(202, json={"accepted": 1, "duplicate": False})
        return httpx.Response(404, json={"error": "no table yet"})


def served(body: bytes, etag: str = '"1"') -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("If-None-Match") == etag:
            return httpx.Response(304)
        return httpx.Response(200, content=body, headers={"ETag": etag})

    return answer
