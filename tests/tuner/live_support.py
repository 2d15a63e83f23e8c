"""A server that runs experiments on made-up steps: no kernel, no time passes but the clock's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner_support import (
    BUCKET,
    BUILD,
    DEFAULT,
    DEVICE,
    GEOMETRY,
    SCOPE,
    STEPS,
    Clock,
    message,
    record,
    split_matters,
)

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import (
    WIRE_VERSION,
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    Outcome,
    Pair,
    SeenBucket,
)
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, TableEntry
from tuner.core import Tuner
from tuner.messages import Noted
from tuner.settings import TunerSettings
from tuner.store.storage import Store

Gain = Callable[[PodConfig], float]


def ask(server: str = "live-1", buckets: list[SeenBucket] | None = None, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "version": WIRE_VERSION,
        "server": server,
        "geometry": str(GEOMETRY),
        "device": str(DEVICE),
        "build": BUILD,
        "buckets": buckets or [SeenBucket(bucket=BUCKET, steps=100, attention_us=4e5)],
    }
    return ExperimentAsk(**(fields | changes))


def report(
    experiment: Experiment, pairs: list[Pair], *, server: str = "live-1", done: bool = True,
    outcome: Outcome = "measured", reason: str = "",
) -> ExperimentReport:  # fmt: skip
    return ExperimentReport(
        version=WIRE_VERSION, server=server, id=experiment.id, outcome=outcome, reason=reason,
        pairs=pairs, layers=16, done=done,
    )  # fmt: skip


class LiveServer:
    """Compares configs on steps that really differ.

    gain   logarithm of a config's speed-up over the default, in the mean over steps
    sd     standard deviation of that logarithm over steps, for each config anew
    noise  the same of one step's pair
    """

    def __init__(
        self, tuner: Tuner, gain: Gain, *, sd: float = 0.02, noise: float = 0.01, seed: int = 0,
        name: str = "live-1",
    ) -> None:  # fmt: skip
        self.tuner, self.gain, self.sd, self.noise, self.name = tuner, gain, sd, noise, name
        self.steps = 0
        self._random = random.Random(f"{seed} {name}")

    def pairs(self, experiment: Experiment, count: int) -> list[Pair]:
        """The next steps of the bucket."""
        sides = experiment.baseline, experiment.candidate
        baseline, candidate = (PodConfig.from_dict(side) for side in sides)
        return [self._pair(baseline, candidate) for _ in range(count)]

    def _pair(self, baseline: PodConfig, candidate: PodConfig) -> Pair:
        self.steps += 1
        us = math.exp(self._random.gauss(math.log(100.0), 0.3))
        gains = {config: self._gain(config) for config in {baseline, candidate}}
        log = gains[candidate] - gains[baseline] + self._random.gauss(0.0, self.noise)
        return Pair(us, us * math.exp(-log), f"{self._random.getrandbits(32):08x}")

    def _gain(self, config: PodConfig) -> float:
        if config == DEFAULT:
            return 0.0
        return self.gain(config) + self._random.gauss(0.0, self.sd)

    def work(self, rounds: int = 400, *, batch: int = 4) -> int:
        """Ask and report until there is nothing to do; returns the experiments done."""
        for done in range(rounds):
            experiment = self.tuner.next_experiment(ask(self.name))
            if experiment is None:
                return done
            self.run(experiment, batch=batch)
        return rounds

    def run(self, experiment: Experiment, *, batch: int = 4) -> Noted:
        """Run one experiment, reporting every `batch` steps."""
        left = experiment.steps
        while True:
            now = min(batch, left)
            left -= now
            told = report(experiment, self.pairs(experiment, now), server=self.name, done=left == 0)
            noted = self.tuner.report_experiment(told)
            if noted.done or left == 0:
                return noted


def live_tuner(folder: Path, clock: Clock | None = None, **settings: Any) -> Tuner:
    """A tuner in memory whose bucket has traffic."""
    first: dict[str, Any] = {"data_dir": folder, "database_url": "sqlite://", "seed": 1}
    chosen = TunerSettings(**first | {"trials": 12} | settings)
    tuner = Tuner(chosen, Store(chosen.url), clock=clock or Clock())
    tuner.ingest(message(records=[record(i) for i in range(STEPS)]))
    return tuner


def split_gains(config: PodConfig) -> float:
    return 0.1 if split_matters(config) < 1000 else 0.0


def entry_of(tuner: Tuner, name: str = BUCKET) -> TableEntry | None:
    body = tuner.table(SCOPE)
    return ConfigTable.from_json(body).entries.get(Bucket.parse(name)) if body else None


def given(tuner: Tuner, server: str = "live-1", **changes: Any) -> Experiment:
    experiment = tuner.next_experiment(ask(server, **changes))
    assert experiment is not None
    return experiment
