"""What a demo run can be told; light, so that `--help` need not import the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """One demo run.

    model        folder or hub name; None makes a small random Llama
    trace        request trace file; None draws from the built-in distribution
    rate         requests per second on average
    seconds      length of the load
    settle       seconds that the tuner then goes on with the traced traffic, server idle
    scale        factor on prompt and answer lengths
    concurrency  requests in flight at most
    chunk        SGLang's --chunked-prefill-size, tokens
    server_port, tuner_port   preferred ports on 127.0.0.1; others when taken
    state        folder of model, logs, traces, table and the tuner's database
    seed         of model, lengths, arrivals and measurements
    """

    model: str | None = None
    trace: Path | None = None
    rate: float = 0.45
    seconds: float = 120.0
    settle: float = 45.0
    scale: float = 0.5
    concurrency: int = 16
    chunk: int = 64
    server_port: int = 30000
    tuner_port: int = 8421
    state: Path = Path(".pod-attn")
    seed: int = 0
