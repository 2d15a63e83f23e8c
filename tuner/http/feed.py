"""One overview for all readers: built at most once a second, and only while somebody reads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import msgspec

from tuner.host.client import AsyncCore, CoreUnavailableError
from tuner.view import documents
from tuner.view.overview import overview

EVENT_SECONDS = 1.0
KEEPALIVE_SECONDS = 10.0


class Feed:
    """Caches the overview's JSON and streams it to every listener."""

    def __init__(self, core: AsyncCore) -> None:
        self._core = core
        self._lock = asyncio.Lock()
        self._overview: documents.Overview | None = None
        self._body = b""
        self._built = -EVENT_SECONDS
        # Set by another thread when the server ends.
        self._stopping = threading.Event()
        self.streams = 0

    async def overview(self) -> documents.Overview:
        """The overview, at most EVENT_SECONDS old."""
        async with self._lock:
            if self._overview is None or time.monotonic() - self._built >= EVENT_SECONDS:
                self._overview = await self._core.ask(overview)
                self._body = msgspec.json.encode(self._overview)
                self._built = time.monotonic()
            return self._overview

    async def latest(self) -> bytes:
        """The overview as JSON."""
        await self.overview()
        return self._body

    def stop(self) -> None:
        """End all streams within EVENT_SECONDS, so that the server can shut down."""
        self._stopping.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events: `overview` at once, then whenever it changed."""
        self.streams += 1
        try:
            sent, sent_at = b"", time.monotonic()
            while not self._stopping.is_set():
                try:
                    body = await self.latest()
                except CoreUnavailableError as error:
                    # The core comes back by itself; listeners see a gap and the reason.
                    yield f": {type(error).__name__}\n\n".encode()
                    body = sent
                if body != sent:
                    yield b"event: overview\ndata: " + body + b"\n\n"
                    sent, sent_at = body, time.monotonic()
                elif time.monotonic() - sent_at > KEEPALIVE_SECONDS:
                    yield b": still here\n\n"
                    sent_at = time.monotonic()
                await asyncio.sleep(EVENT_SECONDS)
        finally:
            self.streams -= 1
