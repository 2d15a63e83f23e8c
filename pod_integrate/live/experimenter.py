"""Experimenter: asks the tuner for experiments, starts them and reports what came of them.

For the thread of a Laboratory. One experiment runs in a bucket, a few in the process; what cannot
be prepared is reported at once. A report that does not arrive is tried again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable

from pod_integrate.live.arming import GIVEN_BACK, arm
from pod_integrate.live.client import TunerClient
from pod_integrate.live.experiments import REPORT_PAIRS, LiveExperiment, Seen
from pod_integrate.live.failures import Failures
from pod_integrate.live.lately import Lately
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.terms.experiment import (
    MAX_REASON,
    WIRE_VERSION,
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    Outcome,
    Pair,
)
from pod_integrate.terms.keys import Bucket

logger = logging.getLogger(__name__)

# Events that are no failures.
BEGUN, MISSED, PAIRS = "experiments_begun", "experiments_missed", "experiment_pairs"
MISMATCH = "experiment_mismatch"
# Those of rare buckets wait for their steps, and must not keep others waiting.
MOST_EXPERIMENTS = 16
# Of one round: reports come between.
_ASKS = 4
# Pairs wait for company, but not for long: the tuner may decide on them, or say stop.
_REPORT_SECONDS = 30.0
# A last report that the tuner was away for is kept so long.
_KEEP_SECONDS = 600.0


@dataclasses.dataclass(eq=False)
class _Lease:
    group: LayerGroup
    experiment: Experiment
    seen: Seen | None
    deadline: float
    reported: float
    live: LiveExperiment | None = None
    unsent: list[Pair] = dataclasses.field(default_factory=list)
    measured: int = 0
    outcome: tuple[Outcome, str] | None = None


class Experimenter:
    """See the module.

    server        id of this process for the tuner
    client        of the thread that calls `round`
    can_compile   whether configs of variants that were not shipped can run here
    now           seconds, for tests
    """

    def __init__(
        self,
        server: str,
        client: TunerClient,
        failures: Failures,
        *,
        can_compile: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server, self._client, self._failures = server, client, failures
        self._can_compile, self._now = can_compile, now
        self._leases: list[_Lease] = []
        self._lately: dict[LayerGroup, Lately] = {}

    def round(self, groups: Iterable[LayerGroup]) -> None:
        """Report what is due and ask for more; raises nothing that the tuner is to blame for."""
        for lease in list(self._leases):
            self._follow(lease)
        for group in groups:
            if group.experiments is not None:
                with self._failures.watch("experiment"):
                    self._ask_for(group)

    def close(self) -> None:
        """End all experiments and report their pairs, once."""
        for lease in list(self._leases):
            if lease.live is None:
                lease.outcome = lease.outcome or GIVEN_BACK
            elif lease.outcome is None:
                self._end(lease, "the server ended")
            self._send(lease)

    def _ask_for(self, group: LayerGroup) -> None:
        """Ask for experiments until there is nothing to try, or enough of them."""
        assert group.experiments is not None
        lately = self._lately.setdefault(group, Lately())
        lately.add(group.experiments.take_seen(), self._now())
        for _ in range(_ASKS):
            if not self._ask(group, lately):
                return

    def _ask(self, group: LayerGroup, lately: Lately) -> bool:
        """Whether the tuner had something to try."""
        busy = {lease.experiment.bucket for lease in self._leases if lease.group is group}
        offers = lately.offers(busy)
        if not offers or len(self._leases) >= MOST_EXPERIMENTS:
            return False
        ask = ExperimentAsk(
            version=WIRE_VERSION,
            server=self._server,
            geometry=str(group.geometry),
            device=str(group.active.device),
            build=group.active.build,
            buckets=offers,
            variants_only=not self._can_compile(),
        )
        answer = self._client.ask_experiment(ask.encode())
        if answer is None:
            return False
        experiment = Experiment.decode(answer)
        self._begin(group, experiment, lately.get(Bucket.parse(experiment.bucket)))
        return True

    def _begin(self, group: LayerGroup, experiment: Experiment, seen: Seen | None) -> None:
        now = self._now()
        lease = _Lease(group, experiment, seen, now + experiment.seconds, now)
        self._leases.append(lease)
        self._arm(lease)

    def _arm(self, lease: _Lease) -> None:
        """Start an experiment whose configs are compiled, or tell why it cannot run."""
        group, experiment = lease.group, lease.experiment
        made = arm(experiment, lease.seen, group.readiness)
        if made is None:
            return
        if not isinstance(made, LiveExperiment):
            lease.outcome = made
            self._failures.count(MISMATCH if made[0] == "mismatch" else MISSED)
            self._send(lease)
            return
        assert group.experiments is not None
        lease.live = made
        # Preparing may have taken long, and is not what the lease is for.
        lease.deadline = self._now() + experiment.seconds
        group.experiments.running[made.bucket] = made
        self._failures.count(BEGUN)

    def _follow(self, lease: _Lease) -> None:
        """Report what has come of an experiment, if it is time."""
        now, live = self._now(), lease.live
        if lease.outcome is not None:
            if now > lease.deadline + _KEEP_SECONDS:
                self._leases.remove(lease)
            else:
                self._send(lease)
            return
        if live is None:
            self._arm(lease)
            return
        refused = lease.group.readiness.refused
        bad = [refused[arm.config] for arm in live.arms if arm.config in refused]
        if bad:
            self._failures.count(MISMATCH)
            self._end(lease, bad[0], mismatch=True)
        elif live.ended or live.measured_all:
            self._end(lease, live.ended)
        elif now > lease.deadline:
            self._end(lease, f"no step of it could be measured in {lease.experiment.seconds:g} s")
        else:
            self._collect(lease)
            late = now - lease.reported > _REPORT_SECONDS
            if len(lease.unsent) < REPORT_PAIRS and not (lease.unsent and late):
                return
        self._send(lease)

    def _end(self, lease: _Lease, reason: str, *, mismatch: bool = False) -> None:
        """Take no more steps; why they ended matters to the tuner for a mismatch only."""
        live, experiments = lease.live, lease.group.experiments
        assert live is not None and experiments is not None
        experiments.running.pop(live.bucket, None)
        self._collect(lease)
        if not (lease.measured or mismatch or live.infeasible):
            logger.info("experiment in %s given back: %s", lease.experiment.bucket, reason)
        lease.outcome = ("mismatch", reason) if mismatch else GIVEN_BACK
        if live.infeasible:
            lease.outcome = "infeasible", reason
            self._failures.count(MISSED)

    def _collect(self, lease: _Lease) -> None:
        assert lease.live is not None
        while lease.live.pairs:
            lease.unsent.append(lease.live.pairs.popleft())
            lease.measured += 1

    def _send(self, lease: _Lease) -> None:
        outcome, reason = lease.outcome or ("measured", "")
        report = ExperimentReport(
            version=WIRE_VERSION,
            server=self._server,
            id=lease.experiment.id,
            outcome=outcome,
            reason=reason.replace("\0", "")[:MAX_REASON],
            pairs=lease.unsent,
            layers=lease.live.layers if lease.live is not None else 0,
            done=lease.outcome is not None,
        )
        with self._failures.watch("experiment_report"):
            wanted = self._client.report_experiment(lease.experiment.id, report.encode())
            self._failures.count(PAIRS, len(lease.unsent))
            lease.unsent = []
            lease.reported = self._now()
            lease.deadline = lease.reported + lease.experiment.seconds
            if not wanted or lease.outcome is not None:
                self._drop(lease)

    def _drop(self, lease: _Lease) -> None:
        self._leases.remove(lease)
        if lease.live is not None and lease.group.experiments is not None:
            lease.group.experiments.running.pop(lease.live.bucket, None)
