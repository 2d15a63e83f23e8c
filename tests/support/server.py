"""A stock SGLang server's answers, against which servers on POD are held."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engines.sglang_server import (
    REFERENCE,
    Answer,
    Server,
    explain,
    mismatches,
    sglang_server,
    trace_shaped,
    wait_ready,
)

SEED = 0
REQUESTS = trace_shaped(40, seed=3)


@dataclasses.dataclass
class Reference:
    """A stock server and what it answered to REQUESTS."""

    server: Server
    expected: list[Answer]

    def check(self, server: Server) -> list[Answer]:
        """Answers of `server`, after the claim that they equal the reference's."""
        answers = server.answers(REQUESTS, seed=SEED)
        found = mismatches(self.server, REQUESTS, self.expected, answers, seed=SEED)
        assert found == [], explain(found, len(REQUESTS))
        return answers


@contextlib.contextmanager
def stock_server(model: Path, folder: Path, *beside: Server) -> Iterator[Reference]:
    """A stock server on `model` that has answered; `beside` are awaited with it."""
    with sglang_server(model, REFERENCE, log=folder / "reference.log") as server:
        wait_ready(server, *beside)
        yield Reference(server, server.answers(REQUESTS, seed=SEED))
