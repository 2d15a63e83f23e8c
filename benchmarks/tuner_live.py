"""The tuner's decisions on live steps, simulated: false promotions, power, and roll backs.

The real core decides; only the server is made up: its steps differ, its clock is noisy. Nothing is
timed.

python benchmarks/tuner_live.py [--runs N]
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._results import record_headline, write
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import (
    WIRE_VERSION,
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    Pair,
    SeenBucket,
)
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.trace import StepRecord, TraceMessage
from tuner.core import Tuner
from tuner.messages import StudyKey
from tuner.orders import PromoteOrder
from tuner.settings import TunerSettings
from tuner.store.storage import Store

COMMAND = "pod-attn bench tuner-live"
GEOMETRY = Geometry(
    num_q_heads=8, num_kv_heads=4, head_dim=64, dtype="fp32", kv_dtype="fp32", page_size=1
)
DEVICE = DeviceKey("simulated-cpu", "avx512", 2)
DEFAULT = target_of(DEVICE).default_config(GEOMETRY)
KEY = StudyKey(str(GEOMETRY), str(DEVICE), "simulated", "p128@256+d4@256")
_SPREADS = (0.01, 0.025, 0.05, 0.1)
_NOISE = 0.01
# Steps that a server goes through between two reports.
_BATCH = 4
# Of one search; more take longer and have no other statistics: alpha is spent over candidates.
_TRIALS = 12


class Server:
    """Runs experiments on steps that differ.

    gain   logarithm of a config's speed-up, in the mean over steps
    sd     standard deviation over steps of that logarithm, for each config anew
    """

    def __init__(
        self, gain: Callable[[PodConfig], float], sd: float, seed: int, **settings: Any
    ) -> None:
        self._gain, self._sd, self._random = gain, sd, random.Random(seed)
        chosen = TunerSettings(
            data_dir=Path(tempfile.gettempdir()), database_url="sqlite://", seed=seed, workers=0,
            trials=_TRIALS,
            **settings,
        )  # fmt: skip
        self._now = 1.8e9
        self.tuner = Tuner(chosen, Store("sqlite://"), clock=lambda: self._now)
        self.tuner.ingest(_traffic())
        self.steps = 0

    def experiments(self) -> Iterator[Experiment]:
        """Until the bucket rests."""
        seen = [SeenBucket(bucket=KEY.bucket, steps=100, attention_us=1e5)]
        keys: dict[str, Any] = {"geometry": KEY.geometry, "device": KEY.device, "build": KEY.build}
        ask = ExperimentAsk(version=WIRE_VERSION, server="simulated", buckets=seen, **keys)
        while (experiment := self.tuner.next_experiment(ask)) is not None:
            yield experiment

    def run(self, experiment: Experiment, *, batch: int = _BATCH) -> None:
        """Report every few steps, until the tuner has enough."""
        left = experiment.steps
        while left > 0:
            count = min(batch, left)
            left -= count
            pairs = [self._pair(experiment) for _ in range(count)]
            noted = self.tuner.report_experiment(ExperimentReport(
                version=WIRE_VERSION, server="simulated", id=experiment.id, outcome="measured",
                pairs=pairs, layers=16, done=left == 0,
            ))  # fmt: skip
            if noted.done:
                return

    def _pair(self, experiment: Experiment) -> Pair:
        self.steps += 1
        log = self._random.gauss(0.0, _NOISE)
        if experiment.candidate != experiment.baseline:
            for side, sign in ((experiment.candidate, 1), (experiment.baseline, -1)):
                log += sign * self._log(PodConfig.from_dict(side))
        us = math.exp(self._random.gauss(math.log(100.0), 0.3))
        return Pair(us, us * math.exp(-log), f"{self._random.getrandbits(32):08x}")

    def _log(self, config: PodConfig) -> float:
        return 0.0 if config == DEFAULT else self._gain(config) + self._random.gauss(0.0, self._sd)

    def promoted(self) -> PodConfig | None:
        """What is in force."""
        entry = self.tuner.tables.promoted(KEY)
        return entry.config if entry is not None else None


def _traffic() -> TraceMessage:
    records = [
        StepRecord(
            time=1.8e9 + i, step=i, q_lens=[128, 1, 1, 1, 1], kv_lens=[256 + i] * 5, step_us=9000.0,
            attention_us=4000.0, layers=8, config="default", source="default",
        )
        for i in range(1, 41)
    ]  # fmt: skip
    return TraceMessage(
        version=1, server="simulated", sequence=0, geometry=KEY.geometry, device=KEY.device,
        build=KEY.build, seen=40, dropped=0, table_version=0,
        configs={"default": DEFAULT.to_dict()}, records=records,
    )  # fmt: skip


def false_promotions(runs: int, sd: float) -> int:
    """Searches, of `runs`, that promote although no config is better in the mean."""
    found = 0
    for seed in range(1000, 1000 + runs):
        server = Server(lambda _config: 0.0, sd, seed)
        for experiment in server.experiments():
            server.run(experiment)
            if server.promoted() is not None:
                found += 1
                break
        server.tuner.close()
    return found


def power(runs: int, sd: float, gain: float) -> tuple[float, float | None]:
    """Share of searches that promote a config with this gain, and the steps of all experiments."""
    better: Callable[[PodConfig], float] = lambda config: (  # noqa: E731
        math.log1p(gain) if 0 < config.decode_split_tokens < DEFAULT.decode_split_tokens else 0.0
    )
    steps = []
    for seed in range(runs):
        server = Server(better, sd, seed)
        for experiment in server.experiments():
            server.run(experiment)
            config = server.promoted()
            if config is not None and better(config) > 0:
                steps.append(server.steps)
                break
        server.tuner.close()
    return len(steps) / runs, statistics.median(steps) if steps else None


def roll_backs(runs: int, sd: float, gain: float) -> list[int | None]:
    """Steps until a config of this gain that a person promoted is taken back; None: kept."""
    taken: list[int | None] = []
    for seed in range(runs):
        server = Server(lambda _config: math.log1p(gain), sd, seed, screen_steps=8)
        experiments = server.experiments()
        for experiment in experiments:
            server.run(experiment, batch=experiment.steps)
            if experiment.number:
                break
        order = PromoteOrder(trial=1, who="simulation", **KEY._asdict())
        assert server.tuner.promote(order).done
        before = server.steps
        watch = next(experiments)
        assert watch.phase.startswith("recheck")
        server.run(watch)
        taken.append(server.steps - before if server.promoted() is None else None)
        server.tuner.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=210)
    runs = parser.parse_args().runs
    # Bars and roll backs are what this is about.
    logging.disable(logging.ERROR)
    false = {str(sd): false_promotions(runs // len(_SPREADS), sd) for sd in _SPREADS}
    few = 20
    powers = {f"{gain:g}": power(few, 0.025, gain) for gain in (0.02, 0.05, 0.1)}
    poor = {str(sd): roll_backs(few, sd, -0.1) for sd in _SPREADS}
    good = {str(sd): roll_backs(few, sd, 0.03) for sd in _SPREADS}
    searches = len(_SPREADS) * (runs // len(_SPREADS))
    watched = [steps for each in poor.values() for steps in each if steps is not None]
    path = write("tuner_live", {
        "searches": searches, "trials": _TRIALS,
        "step_spreads": list(_SPREADS), "pair_noise": _NOISE,
        "false_promotions": false, "power_share_and_steps": powers,
        "watched_steps_until_roll_back_of_10_pct": poor, "same_of_a_gain_of_3_pct": good,
    })  # fmt: skip
    command = f"{COMMAND} -- --runs {runs}"
    share = 100.0 * sum(false.values()) / searches
    record_headline("tuner.aa_searches", searches, "", command)
    record_headline("tuner.aa_false_promotion_pct", round(share, 2), "%", command)
    record_headline("tuner.watched_steps_to_roll_back", max(watched), "steps", command)
    print(path.read_text())


if __name__ == "__main__":
    main()
