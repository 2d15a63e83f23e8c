"""Servers as a source of evidence: what they compare on their own steps, layer by layer.

A server that offers steps gets an experiment in the bucket where most may be gained, never one that
somebody else is measuring. Live steps are new by nature; one whose lengths the trial has met in a
phase that chose it counts for nothing all the same. Whatever breaks is used nowhere any more.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport, SeenBucket
from pod_integrate.terms.keys import DeviceKey, Geometry
from tuner.messages import LivePair, Scope, StudyKey, WorkerInfo
from tuner.phases import Recheck
from tuner.search.board import Board
from tuner.search.campaign import Means
from tuner.search.experiments import Running
from tuner.search.leases import WorkerState
from tuner.search.space import ANY, Within
from tuner.search.stages import Finding
from tuner.search.tasks import make_experiment
from tuner.traffic.steps import spent
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

# A server that has neither asked nor reported for so long is not there any more.
SILENT_SECONDS = 60.0
_MAX_SERVERS = 10_000


class Live:
    """The servers of one tuner; `clock` returns Unix seconds."""

    def __init__(self, board: Board, traffic: Traffic, clock: Callable[[], float]) -> None:
        self._board, self._traffic, self._clock = board, traffic, clock
        # When a server was last heard of; where it let an experiment lie, until when it waits.
        self._heard: dict[str, float] = {}
        self._waits: dict[tuple[str, StudyKey], float] = {}

    def next_experiment(
        self, ask: ExperimentAsk, workers: dict[str, WorkerState]
    ) -> Experiment | None:
        """The most useful experiment that the server can run; it is leased to it.

        workers  where it is shown among those who measure
        """
        now = self._clock()
        self._hear(ask.server, now)
        shown = self._shown(ask, workers, now)
        self.expire(now)
        if self._board.holds.is_paused(ask.server):
            return None
        for key, seen in self._worth(ask, now):
            experiment = self._experiment(ask, key, _within(ask, seen), now)
            if experiment is not None and shown is not None:
                shown.task = f"{key.bucket} #{experiment.number} {experiment.phase}"
                shown.since = now
            if experiment is not None:
                return experiment
        return None

    def report(self, report: ExperimentReport, workers: dict[str, WorkerState]) -> bool | None:
        """File what came of an experiment; None when it is not (any more) wanted from this server.

        Else whether it is decided: more of its steps are of no use then.
        """
        now, board = self._clock(), self._board
        running = board.experiments.get(report.id)
        self._hear(report.server, now)
        if running is None or running.server != report.server:
            logger.info("report of %s on an unknown experiment ignored", report.server)
            return None
        key = running.key
        with board.store.read() as tx:
            campaign = board.campaign(tx, key, now)
        trial = campaign.trials.get(running.trial) if campaign is not None else None
        if campaign is None or trial is None:
            board.forget(key)
            return None
        known = spent(trial, running.phase)
        new = {pair.batch: pair for pair in report.pairs if pair.batch and pair.batch not in known}
        pairs = [LivePair(pair.baseline_us, pair.candidate_us, name) for name, pair in new.items()]
        # A server that cannot run what is in force says nothing about those that do.
        unable = report.outcome in ("failed", "infeasible") and isinstance(running.phase, Recheck)
        if not unable and (pairs or report.outcome != "measured"):
            board.take(key, Finding(
                trial=running.trial, phase=running.phase, pairs=list(pairs),
                outcome=report.outcome, reason=report.reason,
            ), now)  # fmt: skip
        if unable:
            logger.warning("%s cannot re-check %s: %s", report.server, key, report.reason)
            self._wait(running, now)
        else:
            self._count(running, report, now)
        wanted = campaign.wants(running.trial, running.phase)
        over = report.done or not wanted or board.holds.is_paused(report.server)
        self._go_on(running, over, now)
        state = workers.get(_shown_name(report.server))
        if over and state is not None:
            state.task, state.since = None, now
        return over

    def expire(self, now: float) -> None:
        """Take back experiments whose server has let their time run out."""
        self._board.experiments.drop_forgotten(self._board.store)
        for running in self._board.experiments.overdue(now):
            self._go_on(running, True, now)
            heard = self._heard.get(running.server)
            if heard is None:
                # Of an earlier process: it may have gone while nobody listened.
                continue
            if now - heard < SILENT_SECONDS:
                # The bucket has no traffic there, or the server forgot: nobody's fault.
                self._wait(running, now)
            elif self._board.experiments.count_silent(running):
                self._blame(running, now)

    def _worth(self, ask: ExperimentAsk, now: float) -> list[tuple[StudyKey, SeenBucket]]:
        """Buckets of an ask in which something may be measured, the most promising first."""
        board, scope = self._board, Scope(ask.geometry, ask.device, ask.build)
        seen = {StudyKey(*scope, one.bucket): one for one in ask.buckets if one.steps}
        busy = {running.key for running in board.experiments.of_server(ask.server)}
        loads = {key: self._traffic.load_of(key, now) for key in seen}
        timed = any(one.attention_us > 0 for one in seen.values())
        gains = {}
        for key, load in loads.items():
            waits = self._waits.get((ask.server, key), now) > now
            if load is None or key in busy or waits or not board.open(key, now):
                continue
            # A trace came from there: a stranger's keys cost nothing.
            if load.steps >= board.settings.min_steps:
                us = seen[key].attention_us if timed else load.attention_us
                gains[key] = board.promise(key, now, live=True) * max(us, 1e-9)
        return [(key, seen[key]) for key in sorted(gains, key=lambda key: (-gains[key], key))]

    def _experiment(
        self, ask: ExperimentAsk, key: StudyKey, within: Within, now: float
    ) -> Experiment | None:
        board, seconds, given = self._board, self._board.settings.experiment_seconds, None
        with board.careful(key, now):
            made = None
            with board.store.begin() as tx:
                work = board.next_work(tx, key, now, Means(None, within))
                if work is not None:
                    running = Running(
                        uuid.uuid4().hex, key, work.stage.trial.number, work.stage.phase,
                        ask.server, work.wanted, now + seconds,
                    )  # fmt: skip
                    board.experiments.grant(tx, running)
                    made = make_experiment(running, work, seconds)
            given = made
        return given  # noqa: RET504 (a failure that `careful` takes leaves it None)

    def _count(self, running: Running, report: ExperimentReport, now: float) -> None:
        parking = self._board.parking
        if report.outcome != "measured":
            parking.failed(running.key, report.outcome, report.reason, now)
        elif report.pairs:
            parking.worked(running.key)
        elif report.done:
            self._wait(running, now)

    def _go_on(self, running: Running, over: bool, now: float) -> None:
        board = self._board
        with board.careful(running.key, now), board.store.begin() as tx:
            if over:
                board.experiments.end(tx, running)
            else:
                board.experiments.prolong(tx, running, now + board.settings.experiment_seconds)

    def _blame(self, running: Running, now: float) -> None:
        with self._board.store.read() as tx:
            campaign = self._board.campaign(tx, running.key, now)
        if campaign is not None and running.trial in campaign.trials:
            reason = "servers fell silent while they ran it; the config may crash them"
            self._board.take(running.key, Finding(
                trial=running.trial, phase=running.phase, pairs=[], outcome="failed",
                reason=reason, broke=True,
            ), now)  # fmt: skip

    def _wait(self, running: Running, now: float) -> None:
        """Offer the server another bucket for a while."""
        self._waits = {place: until for place, until in self._waits.items() if until > now}
        wait = 2 * self._board.settings.experiment_seconds
        self._waits[running.server, running.key] = now + wait

    def _hear(self, server: str, now: float) -> None:
        self._heard[server] = now
        if len(self._heard) > _MAX_SERVERS:
            del self._heard[min(self._heard, key=self._heard.__getitem__)]

    def _shown(
        self, ask: ExperimentAsk, workers: dict[str, WorkerState], now: float
    ) -> WorkerState | None:
        name = _shown_name(ask.server)
        if name not in workers and len(workers) >= _MAX_SERVERS:
            return None
        info = WorkerInfo(id=name, device=ask.device, build=ask.build)
        state = workers.setdefault(name, WorkerState(info, now))
        state.info, state.seen = info, now
        if not self._board.experiments.of_server(ask.server):
            state.task = None
        return state


def _shown_name(server: str) -> str:
    return f"{server}, live steps"


def _within(ask: ExperimentAsk, seen: SeenBucket) -> Within:
    """The configs that the server can run in a bucket now."""
    if seen.captured:
        return Within(frozenset({seen.tiles}))
    if not ask.variants_only:
        return ANY
    try:
        geometry, target = Geometry.parse(ask.geometry), target_of(DeviceKey.parse(ask.device))
        return Within(target.choices(geometry).shipped)
    except PodAttentionError:
        return ANY
