"""One bucket's way from first trial to promotion, and back when a promotion goes bad.

Every candidate is screened on a few steps; these select and never decide. The best is then
confirmed on other steps against the default, and before that against what is promoted now. What was
promoted is measured against the default on fresh steps again: soon, then from time to time. What
these refute is rolled back.

    Screen -> pruned | complete -> Duel against promoted and default ... -> promoted | rejected
    promoted -> Recheck -> promoted | rolled back
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from pod_integrate.terms.config import PodConfig
from tuner.phases import Duel, Recheck
from tuner.search.stages import Change, Duelling, Finding, Rechecking, Stage, screening, stage_of
from tuner.search.state import State
from tuner.store.rows import DecisionKind, Trial, add_pairs, save_trial
from tuner.traffic.samples import Sample
from tuner.traffic.steps import fresh

# A task has no more steps than this, so that a bad candidate is found out early.
_STEPS_PER_TASK = 8


class Work(NamedTuple):
    """What to measure next: the stage's trial against `baseline`.

    steps  what to measure them on
    last   whether no other steps are left for this stage
    """

    stage: Stage
    baseline: PodConfig
    steps: list[Sample]
    verify: bool
    last: bool


class Campaign:
    """The state machine of one bucket: `next_work` says what to measure, `take` what it means.

    `take` needs no `next_work` before it: evidence may come from anybody. Methods that take a
    transaction write what they change.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def trials(self) -> dict[int, Trial]:
        """The study's trials by number."""
        return self._state.trials

    @property
    def promoted(self) -> Trial | None:
        """The trial whose config is in force, None when the default is."""
        return self._state.promoted

    @property
    def resting(self) -> bool:
        """Whether the search is over for now."""
        return self._state.rested is not None

    def recheck_due(self, now: float) -> bool:
        """Whether what is promoted should be measured against the default again."""
        return self._state.recheck_due(now)

    def next_work(
        self, tx: sa.Connection, busy: set[int], now: float, pool: list[Sample]
    ) -> Work | None:
        """What to measure now; None when all of it is being measured or the bucket rests.

        busy  numbers of trials that a worker holds
        pool  distinct steps of the bucket's traffic; a stage that has used them waits for others
        """
        state = self._state
        work = self._recheck(busy, now, pool) or self._duel(busy, pool)
        if work is not None:
            return work
        for trial in state.trials.values():
            if trial.state == "running" and trial.number not in busy:
                return self._work(screening(trial), pool)
        if state.rests(now):
            return None
        if state.look(tx, final=False):
            return self._duel(busy, pool)
        if state.may_ask(len(busy)):
            asked = state.ask(tx, now)
            if asked is not None:
                return self._work(screening(asked), pool)
        if busy:
            return None
        if state.look(tx, final=True):
            return self._duel(busy, pool)
        state.rest(tx, now)
        return None

    def take(self, tx: sa.Connection, finding: Finding, now: float) -> Change | None:
        """File what somebody found out about a trial; a Change tells the caller to publish."""
        state, trial = self._state, self._state.trials[finding.trial]
        stage = stage_of(trial, finding.phase)
        trial.updated = now
        add_pairs(tx, trial, finding.phase, finding.pairs, now)
        trial.pairs.setdefault(finding.phase, []).extend(finding.pairs)
        if finding.outcome == "measured":
            change = stage.take(state, tx, finding, now)
        else:
            trial.reason = f"{finding.outcome}: {finding.reason}"
            kind: DecisionKind = "mismatch" if finding.outcome == "mismatch" else "prune"
            alert = finding.outcome != "infeasible"
            state.decide(tx, kind, trial, trial.reason, now, alert=alert)
            change = stage.fail(state, tx, now)
        save_trial(tx, trial)
        return change

    def _recheck(self, busy: set[int], now: float, pool: list[Sample]) -> Work | None:
        trial = self.promoted
        if trial is None or trial.number in busy or not self.recheck_due(now):
            return None
        return self._work(Rechecking(trial, Recheck(trial.rechecks)), pool)

    def _duel(self, busy: set[int], pool: list[Sample]) -> Work | None:
        for trial in self.trials.values():
            if trial.confirmation and not trial.fate and trial.number not in busy:
                work = self._work(self._next_duel(trial), pool)
                if work is not None:
                    return work
        return None

    def _next_duel(self, trial: Trial) -> Stage:
        """Against what is promoted until that is beaten, then against the default."""
        if self.promoted is not None:
            rival = Duelling(trial, Duel(trial.confirmation, self.promoted.number))
            if rival.verdict(self._state).outcome != "better":
                return rival
        return Duelling(trial, Duel(trial.confirmation))

    def _work(self, stage: Stage, pool: list[Sample]) -> Work | None:
        have = len({pair.batch for pair in stage.pairs})
        left = fresh(pool, stage.trial, stage.phase)
        wanted = min(stage.limit(self._state) - have, _STEPS_PER_TASK)
        if not left or wanted <= 0:
            return None
        return Work(
            stage, stage.baseline(self._state), left[:wanted],
            verify=have == 0, last=len(left) <= wanted,
        )  # fmt: skip
