"""Recorder: a bounded, sampled log of steps that never makes the serving thread wait.

The serving thread calls `begin`, `end` and `settle`; one other thread calls `drain`.
Records hold lengths and times only.
"""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

from pod_integrate.devices.clock import Clock
from pod_integrate.live.open_step import OpenStep
from pod_integrate.terms import wire
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import Source
from pod_integrate.terms.trace import MAX_CONFIGS, MAX_RECORDS, MAX_ROWS, StepRecord

DEFAULT_CAPACITY = 8192
# Keeps a message far below trace.MAX_MESSAGE_BYTES: at most 5 bytes a length, 300 a config.
_MAX_LENGTHS = 100_000
# Steps whose times are owed; more are filed without.
_MOST_WAITING = 256


class Drained(NamedTuple):
    """What happened since the last `drain`; `configs` holds every config that records name."""

    records: list[StepRecord]
    configs: dict[str, PodConfig]
    seen: int
    dropped: int


class Recorder:
    """Samples steps into a bounded buffer; a full one drops and counts, it never waits.

    clock     of the device that the steps run on
    sample    share of steps kept, 0..1, drawn at random so that no periodic load is missed
    capacity  records held until the next `drain`
    seed      of the draw
    """

    def __init__(
        self,
        clock: Clock,
        *,
        sample: float,
        capacity: int = DEFAULT_CAPACITY,
        seed: int | None = None,
    ) -> None:
        self.clock = clock
        self._sample, self._capacity = sample, capacity
        # Not shared with the process: drawing here must not move anybody's random numbers.
        self._random = random.Random(seed)
        self._steps: deque[OpenStep] = deque()
        self._waiting: deque[OpenStep] = deque()
        self._layers = 0
        # Only the serving thread adds to these; `drain` reports differences, so no lock is needed.
        self._seen = self._dropped = 0
        # Only `drain` adds to this one.
        self._refused = 0
        self._reported_seen = self._reported_dropped = 0

    def begin(self, batch: HybridBatch, config: PodConfig, source: Source) -> OpenStep | None:
        """Count a step; an OpenStep to hand to `end` when it was drawn, else None."""
        if not self._drawn(batch.num_requests):
            return None
        number, layers = self._seen - 1, self._layers
        return OpenStep(number, batch.lengths, config, source, self.clock, expected_layers=layers)

    def begin_replay(
        self,
        lengths: tuple[list[int], list[int]],
        config: PodConfig,
        source: Source,
        *,
        layers: int,
    ) -> OpenStep | None:
        """As `begin`, of a step that replays a captured graph with `layers` attention calls.

        Its caller sets `read_graph`.
        """
        if not self._drawn(len(lengths[0])):
            return None
        step = OpenStep(self._seen - 1, lengths, config, source, self.clock, expected_layers=layers)
        step.layers = layers
        return step

    def skip(self) -> None:
        """Count a step whose time would mislead, e.g. one that warms up; it is never drawn."""
        self._seen += 1

    def end(self, step: OpenStep) -> None:
        """File a step whose layers have all been called."""
        self._layers = step.layers
        self._waiting.append(step)
        self.settle()

    def settle(self) -> None:
        """File what the clock owes no more; also the oldest, timed or not, when many wait."""
        while self._waiting and (not self._waiting[0].open or len(self._waiting) > _MOST_WAITING):
            self._steps.append(self._waiting.popleft())

    def _drawn(self, rows: int) -> bool:
        self._seen += 1
        if self._random.random() >= self._sample:
            return False
        if len(self._steps) >= self._capacity or rows > MAX_ROWS:
            self._dropped += 1
            return False
        return True

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
            if lengths > _MAX_LENGTHS or (key not in configs and len(configs) >= MAX_CONFIGS):
                break
            self._steps.popleft()
            if not _fits(step):
                self._refused += 1
                continue
            configs[key] = step.config
            records.append(_record(step, key))
        dropped += self._refused
        taken = Drained(
            records, configs, seen - self._reported_seen, dropped - self._reported_dropped
        )
        self._reported_seen, self._reported_dropped = seen, dropped
        return taken

    def __len__(self) -> int:
        return len(self._steps)


def _fits(step: OpenStep) -> bool:
    """Whether the tuner would take a step: one beyond the wire's bounds costs its whole message."""
    times = (step.step_us, step.attention_us)
    return (
        max(step.kv_lens, default=0) <= wire.MAX_LENGTH
        and step.layers <= wire.MAX_LAYERS
        and all(0.0 <= us <= wire.MAX_MICROS for us in times)
        and 0.0 <= step.time <= wire.MAX_UNIX_SECONDS
    )


def _record(step: OpenStep, key: str) -> StepRecord:
    return StepRecord(
        time=step.time,
        step=step.number,
        q_lens=step.q_lens,
        kv_lens=step.kv_lens,
        step_us=step.step_us,
        attention_us=step.attention_us,
        layers=step.layers,
        config=key,
        source=step.source,
    )
