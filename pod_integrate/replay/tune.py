"""Tunes on this machine from a run of steps: a tuner and its worker in this process, no server."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pod_integrate.devices.base import Device
from pod_integrate.replay.serving import Step
from pod_integrate.replay.tally import Tally
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.table import ConfigTable
from pod_integrate.terms.trace import WIRE_VERSION, StepRecord, TraceMessage
from tuner.clock import SteadyClock
from tuner.core import Tuner
from tuner.measure.bench import Bench, OpBench
from tuner.measure.worker import describe, measure
from tuner.messages import Scope
from tuner.settings import load
from tuner.store.storage import Store

SERVER = "replay"
# Of one message; its rows bound its bytes.
_RECORDS, _ROWS = 512, 50_000
# Steps are dated back by so much, so that what is measured later has a date of today.
_BEFORE_SECONDS = 86400.0
_LONGEST_SECONDS = 30 * 86400.0
_HOUSEKEEPING_SECONDS = 2.0


class LogClock:
    """The time of a log while it is read, then that of this machine; it only grows."""

    def __init__(self) -> None:
        self._steady = SteadyClock()
        self._log: float | None = self._steady() - _BEFORE_SECONDS

    def __call__(self) -> float:
        """Unix seconds."""
        return self._steady() if self._log is None else self._log

    def advance(self, seconds: float) -> None:
        """Steps of the log took so long."""
        assert self._log is not None, "the log has been read"
        self._log += seconds

    def end(self) -> None:
        """The log has been read."""
        self._log = None


@dataclasses.dataclass(frozen=True)
class Looked:
    """How far the tuning is: tasks measured, trials in force, and the bucket at work."""

    tasks: int
    promoted: int
    bucket: str


class Replay:
    """One run over `state`, the folder of its database, which this process alone may have.

    layers  attention calls of a step: as many K/V caches are rotated through
    trials  of one bucket before it rests
    bench   default the op on `device`
    """

    def __init__(
        self,
        state: Path,
        device: Device,
        geometry: Geometry,
        *,
        layers: int,
        trials: int,
        bench: Bench | None = None,
    ) -> None:
        device.default_config(geometry)
        # What the environment says of a service must not reach its database from here.
        settings = load(
            data_dir=state, database_url="", trace_dir=None, host="127.0.0.1", workers=0,
            trials=trials, half_life_seconds=_LONGEST_SECONDS,
        )  # fmt: skip
        self._clock, self._layers, self._device = LogClock(), layers, device
        self._bench = bench or OpBench(device)
        self._tuner = Tuner(settings, Store(settings.url), clock=self._clock)
        self._worker = describe(SERVER, device)
        self.scope = Scope(str(geometry), self._worker.device, self._worker.build)
        self._default = device.default_config(geometry).to_dict()
        self._sequence = 0

    def close(self) -> None:
        """Give the database back."""
        self._tuner.close()

    def feed(self, steps: Iterable[Step], tally: Tally) -> None:
        """Take all steps, count them in `tally`, and end the log."""
        for batch in _batches(steps):
            us = [tally.add(step) * (step.layers or self._layers) for step in batch]
            # As a server sends them: a second of attention takes a second at least.
            self._clock.advance(sum(us) * 1e-6)
            self._tuner.ingest(self._message(batch))
        self._clock.end()
        self._tuner.housekeeping()

    def tune(self, seconds: float, looked: Callable[[Looked], None]) -> str:
        """Measure until nothing is left to try, or the time is over; says which it was."""
        deadline, kept, tasks = time.monotonic() + seconds, time.monotonic(), 0
        while time.monotonic() < deadline:
            task = self._tuner.next_task(self._worker)
            if task is None:
                return "nothing is left to try now"
            looked(Looked(tasks, self._promoted(), task.key.bucket))
            self._tuner.report(measure(task, self._worker.id, self._bench))
            tasks += 1
            if time.monotonic() - kept > _HOUSEKEEPING_SECONDS:
                self._tuner.housekeeping()
                kept = time.monotonic()
        return f"the {seconds:g} s are over; give it more --seconds, or go on with --state"

    def table(self) -> ConfigTable | None:
        """What was promoted, None when nothing was."""
        body = self._tuner.table(self.scope)
        return None if body is None else ConfigTable.from_json(body)

    def _promoted(self) -> int:
        table = self.table()
        return 0 if table is None else len(table.entries)

    def _message(self, batch: list[Step]) -> TraceMessage:
        now, first = self._clock(), self._sequence * _RECORDS + 1
        self._sequence += 1
        return TraceMessage(
            version=WIRE_VERSION, server=SERVER, sequence=self._sequence, **self.scope._asdict(),
            seen=len(batch), dropped=0, table_version=0, configs={"default": self._default},
            records=[
                StepRecord(
                    time=now, step=first + i, q_lens=step.q_lens, kv_lens=step.kv_lens, step_us=0.0,
                    attention_us=step.attention_us, layers=step.layers or self._layers,
                    config="default", source="default",
                )
                for i, step in enumerate(batch)
            ],
        )  # fmt: skip


def _batches(steps: Iterable[Step]) -> Iterator[list[Step]]:
    batch: list[Step] = []
    rows = 0
    for step in steps:
        batch.append(step)
        rows += len(step.q_lens)
        if len(batch) >= _RECORDS or rows >= _ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch
