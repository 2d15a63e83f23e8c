"""Helpers of the tuner's tests: messages, recorded times, a clock, a tuner without a kernel."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.trace import WIRE_VERSION, StepRecord, TraceMessage
from tuner.core import Tuner
from tuner.measure.bench import Bench, MismatchError
from tuner.measure.worker import measure
from tuner.messages import Pair, Scope, StepLengths, StudyKey, WorkerInfo
from tuner.settings import TunerSettings
from tuner.store.storage import Store
from tuner.view import overview as view

GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
DEVICE = DeviceKey("test-cpu", "avx512", 2)
BUILD = "cpu-test"
DEFAULT = target_of(DEVICE).default_config(GEOMETRY)
WORKER = WorkerInfo(id="w0", device=str(DEVICE), build=BUILD)
BUCKET = "p128@256+d4@256"
# Distinct steps of a message: for screening, a confirmation and a re-check.
STEPS = 64
STEP = ([128, 1, 1, 1, 1], [256, 256, 256, 256, 256])
SCOPE = Scope(str(GEOMETRY), str(DEVICE), BUILD)
KEY = StudyKey(*SCOPE, BUCKET)


class Clock:
    """Unix seconds that move only when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def record(
    step: int = 0, *, lengths: tuple[list[int], list[int]] | None = None, **changes: Any
) -> StepRecord:
    """One step; without `lengths` those of STEP, a token longer with every step."""
    if lengths is None:
        lengths = STEP[0], [kv_len + step % 64 for kv_len in STEP[1]]
    fields: dict[str, Any] = {
        "time": 1_800_000_000.0 + step,
        "step": step,
        "q_lens": lengths[0],
        "kv_lens": lengths[1],
        "step_us": 9000.0,
        "attention_us": 4000.0,
        "layers": 8,
        "config": "default",
        "source": "default",
    }
    return StepRecord(**(fields | changes))


def message(
    sequence: int = 0, records: list[StepRecord] | None = None, **changes: Any
) -> TraceMessage:
    taken = [record(i) for i in range(STEPS)] if records is None else records
    fields: dict[str, Any] = {
        "version": WIRE_VERSION,
        "server": "server-1",
        "sequence": sequence,
        "geometry": str(GEOMETRY),
        "device": str(DEVICE),
        "build": BUILD,
        "seen": len(taken),
        "dropped": 0,
        "table_version": 0,
        "configs": {"default": DEFAULT.to_dict()},
        "records": taken,
    }
    return TraceMessage(**(fields | changes))


class RecordedBench(Bench):
    """Times from a function of the config, with seeded noise; some configs are wrong."""

    def __init__(
        self,
        us: Callable[[PodConfig], float],
        *,
        noise: float = 0.02,
        wrong: Callable[[PodConfig], bool] = lambda _config: False,
    ) -> None:
        self.us, self.noise, self.wrong = us, noise, wrong
        self.verified: list[PodConfig] = []
        self._random = random.Random(7)

    def verify(
        self, config: PodConfig, geometry: Geometry, lengths: StepLengths, seed: int
    ) -> None:
        self.verified.append(config)
        if self.wrong(config):
            raise MismatchError(f"{config.short()} is wrong in this recording")

    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: StepLengths,
        *, count: int, seconds: float, layers: int,
    ) -> list[Pair]:  # fmt: skip
        def timed(config: PodConfig) -> float:
            return self.us(config) * self._random.lognormvariate(0.0, self.noise)

        return [Pair(timed(baseline), timed(candidate), lengths.digest) for _ in range(count)]


class SteppedBench(Bench):
    """Made-up times: a config's gain differs from step to step, as it does in real traffic.

    gain   logarithm of a config's speed-up over the default, in the mean over steps
    sd     standard deviation of that logarithm over the steps of a bucket
    noise  the same over the pairs of one step
    """

    def __init__(
        self, gain: Callable[[PodConfig], float], *, sd: float, seed: int, noise: float = 0.02
    ) -> None:
        self.gain, self.sd, self.seed, self.noise = gain, sd, seed, noise
        self._random = random.Random(seed)

    def verify(
        self, config: PodConfig, geometry: Geometry, lengths: StepLengths, seed: int
    ) -> None:
        """Every config is right."""

    def pairs(
        self, baseline: PodConfig, candidate: PodConfig, geometry: Geometry, lengths: StepLengths,
        *, count: int, seconds: float, layers: int,
    ) -> list[Pair]:  # fmt: skip
        def us(config: PodConfig) -> float:
            log = 0.0
            if config != DEFAULT:
                step = random.Random(f"{self.seed} {config.short()} {lengths.digest}")
                log = self.gain(config) + step.gauss(0.0, self.sd)
            return 1000.0 * math.exp(self._random.gauss(0.0, self.noise) - log)

        return [Pair(us(baseline), us(candidate), lengths.digest) for _ in range(count)]


def make_tuner(folder: Path, clock: Callable[[], float] | None = None, **settings: Any) -> Tuner:
    given: dict[str, Any] = {"data_dir": folder, "seed": 1, "trials": 12} | settings
    chosen = TunerSettings(**given)
    return Tuner(chosen, Store(chosen.url), clock=clock or Clock())


def drive(tuner: Tuner, bench: Bench, *, tasks: int = 500) -> int:
    """Work like a worker until nothing is left; returns the tasks done."""
    for done in range(tasks):
        task = tuner.next_task(WORKER)
        if task is None:
            return done
        assert tuner.report(measure(task, WORKER.id, bench))
    return tasks


def keep_house(tuner: Tuner) -> None:
    """Housekeeping, and once more when the archive's thread has written what there was."""
    tuner.housekeeping()
    tuner.archive._writer.submit(int).result()
    tuner.housekeeping()


def split_matters(config: PodConfig) -> float:
    """Half the time when decode is split finer than the default, else the same."""
    return 500.0 if 0 < config.decode_split_tokens < DEFAULT.decode_split_tokens else 1000.0


def nothing_matters(_config: PodConfig) -> float:
    """Every config takes the same time."""
    return 1000.0


def overview(tuner: Tuner) -> dict[str, Any]:
    """GET /v1/overview as JSON has it."""
    document: dict[str, Any] = msgspec.to_builtins(view.overview(tuner))
    return document


def trials(tuner: Tuner, key: StudyKey) -> dict[str, Any]:
    """GET /v1/trials as JSON has it."""
    document: dict[str, Any] = msgspec.to_builtins(view.trials(tuner, key))
    return document


def samples(tuner: Tuner, scope: Scope) -> dict[str, Any]:
    """GET /v1/samples as JSON has it."""
    document: dict[str, Any] = msgspec.to_builtins(view.samples(tuner, scope))
    return document


def bucket(tuner: Tuner) -> dict[str, Any]:
    """The first bucket of the overview."""
    row: dict[str, Any] = overview(tuner)["buckets"][0]
    return row


def kinds(tuner: Tuner) -> list[str]:
    """Decisions, the oldest first."""
    return [decision["kind"] for decision in reversed(overview(tuner)["decisions"])]
