"""Recorder: a bounded, sampled log of steps that never makes the serving thread wait.

The serving thread calls `begin`, `add_attention` and `end`; one other thread calls `drain`.
Records hold lengths and times only.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import NamedTuple

from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig
from pod_integrate.table import Source
from pod_integrate.trace import MAX_RECORDS, MAX_ROWS, StepRecord

DEFAULT_CAPACITY = 8192
# Keeps a message far below trace.MAX_MESSAGE_BYTES: at most 5 bytes a length, 300 a config.
_MAX_LENGTHS = 100_000
_MAX_CONFIGS = 256


class OpenStep:
    """One sampled step while its layers run; times in microseconds, filled by the recorder."""

    __slots__ = (
        "attention_us",
        "config",
        "kv_lens",
        "layers",
        "number",
        "q_lens",
        "source",
        "step_us",
        "time",
    )

    def __init__(
        self,
        number: int,
        lengths: tuple[list[int], list[int]],
        config: PodConfig,
        source: Source,
    ) -> None:
        self.time = time.time()
        self.number = number
        self.q_lens, self.kv_lens = lengths
        self.config = config
        self.source = source
        self.step_us = 0.0
        self.attention_us = 0.0
        self.layers = 0

    def add_attention(self, seconds: float) -> None:
        """Count one attention call of this step."""
        self.attention_us += seconds * 1e6
        self.layers += 1


class Drained(NamedTuple):
    """What happened since the last `drain`; `configs` holds every config that records name."""

    records: list[StepRecord]
    configs: dict[str, PodConfig]
    seen: int
    dropped: int


class Recorder:
    """Samples steps into a bounded buffer; a full one drops and counts, it never waits.

    sample    share of steps kept, 0..1, drawn at random so that no periodic load is missed
    capacity  records held until the next `drain`
    seed      of the draw
    """

    def __init__(
        self, *, sample: float, capacity: int = DEFAULT_CAPACITY, seed: int | None = None
    ) -> None:
        self._sample, self._capacity = sample, capacity
        # Not shared with the process: drawing here must not move anybody's random numbers.
        self._random = random.Random(seed)
        self._steps: deque[OpenStep] = deque()
        # Only the serving thread adds to these; `drain` reports differences, so no lock is needed.
        self._seen = self._dropped = 0
        self._reported_seen = self._reported_dropped = 0

    def begin(self, batch: HybridBatch, config: PodConfig, source: Source) -> OpenStep | None:
        """Count a step; an OpenStep to hand to `end` when it was drawn, else None."""
        self._seen += 1
        if self._random.random() >= self._sample:
            return None
        if len(self._steps) >= self._capacity or batch.num_requests > MAX_ROWS:
            self._dropped += 1
            return None
        return OpenStep(self._seen - 1, batch.lengths, config, source)

    def end(self, step: OpenStep, *, step_seconds: float = 0.0) -> None:
        """File a step; `step_seconds` is its wall time, 0 when unknown."""
        step.step_us = step_seconds * 1e6
        self._steps.append(step)

    def drain(self, *, limit: int = MAX_RECORDS) -> Drained:
        """Take the oldest records, as many as fit one trace message and `limit`."""
        seen, dropped = self._seen, self._dropped
        records: list[StepRecord] = []
        configs: dict[str, PodConfig] = {}
        lengths = 0
        while self._steps and len(records) < limit:
            step = self._steps[0]
            lengths += 2 * len(step.q_lens)
            key = step.config.short()
            if lengths > _MAX_LENGTHS or (key not in configs and len(configs) >= _MAX_CONFIGS):
                break
            self._steps.popleft()
            configs[key] = step.config
            records.append(_record(step, key))
        taken = Drained(
            records, configs, seen - self._reported_seen, dropped - self._reported_dropped
        )
        self._reported_seen, self._reported_dropped = seen, dropped
        return taken

    def __len__(self) -> int:
        return len(self._steps)


def _record(step: OpenStep, key: str) -> StepRecord:
    return StepRecord(
        time=step.time,
        step=step.number,
        q_lens=step.q_lens,
        kv_lens=step.kv_lens,
        step_us=min(step.step_us, 1e10),
        attention_us=min(step.attention_us, 1e10),
        layers=step.layers,
        config=key,
        source=step.source,
    )
