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
from tuner.phases import Duel, Phase, Recheck, Screen
from tuner.search.axes import Known
from tuner.search.judge import Verdict
from tuner.search.space import ANY, Within
from tuner.search.stages import Change, Duelling, Finding, Rechecking, Stage, screening, stage_of
from tuner.search.state import State
from tuner.store.rows import DecisionKind, Trial, add_pairs, save_trial
from tuner.traffic.samples import Sample
from tuner.traffic.steps import fresh

# A task has no more steps than this, so that a bad candidate is found out early.
_STEPS_PER_TASK = 8


class Means(NamedTuple):
    """What somebody who asks for work can measure.

    pool    distinct traced steps of the bucket; a stage that has used them waits for others. None:
            live steps, every one of which is new
    within  the configs that it can run
    """

    pool: list[Sample] | None
    within: Within = ANY


class Assignment(NamedTuple):
    """What to measure next: the stage's trial against `baseline`.

    steps   what to measure them on; None: live steps
    wanted  distinct steps
    last    whether no other steps are left for this stage
    """

    stage: Stage
    baseline: PodConfig
    steps: list[Sample] | None
    wanted: int
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
        return self._state.rest.since is not None

    @property
    def default(self) -> PodConfig:
        """What is in force while nothing is promoted."""
        return self._state.study.default

    @property
    def promise(self) -> float:
        """What the search may still gain, as a share of the bucket's time."""
        return self._state.promise

    def idle(self, now: float) -> bool:
        """Whether nothing is left to measure for now, whatever steps there are."""
        return self._state.idle(now)

    def recheck_due(self, now: float, *, live: bool = False) -> bool:
        """Whether what is promoted should be measured against the default again.

        live  by a server: at once after a promotion
        """
        return self._state.recheck_due(now, live=live)

    def hear(self, config: PodConfig, known: list[Known]) -> None:
        """A similar bucket has just promoted `config`; `known` is what such buckets found."""
        self._state.hear(config, known)

    def shun(self, tx: sa.Connection, barred: frozenset[PodConfig]) -> None:
        """Neither measure nor promote these."""
        self._state.shun(tx, barred)

    def wants(self, number: int, phase: Phase) -> bool:
        """Whether more pairs of a trial in a phase could decide anything."""
        trial = self.trials[number]
        match phase:
            case Screen():
                return trial.state == "running"
            case Duel():
                return not trial.fate and self._next_duel(trial).phase == phase
            case Recheck():
                return trial is self.promoted and trial.rechecks == phase.passed

    def next_work(
        self, tx: sa.Connection, busy: set[int], now: float, means: Means
    ) -> Assignment | None:
        """What to measure now; None when all of it is being measured or the bucket rests.

        busy  numbers of trials that a worker or a server holds
        """
        state, within = self._state, means.within
        if not within.allows(self.default):
            return None
        work = self._recheck(busy, now, means) or self._duel(busy, means)
        if work is not None:
            return work
        for trial in state.trials.values():
            if trial.state == "running" and trial.number not in busy:
                work = self._work(screening(trial), means)
                if work is not None:
                    return work
        if state.rests(now):
            return None
        if state.look(tx, within, final=False):
            return self._duel(busy, means)
        if state.may_ask(len(busy)):
            asked = state.ask(tx, within, now)
            if asked is not None:
                return self._work(screening(asked), means)
        if busy:
            return None
        if state.look(tx, within, final=True):
            return self._duel(busy, means)
        # Others may be able to run what is left.
        if within == ANY:
            state.end(tx, now)
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

    def roll_back(self, tx: sa.Connection, reason: str, now: float, *, who: str = "") -> Change:
        """Take the entry out, whatever is measured."""
        state, trial = self._state, self.promoted
        if trial is not None:
            state.roll_back(trial)
            save_trial(tx, trial)
        state.decide(tx, "rollback", trial, reason, now, alert=True, who=who)
        return Change(None, Verdict("not better", reason))

    def promote(
        self, tx: sa.Connection, trial: Trial, change: Change, now: float, who: str
    ) -> None:
        """Put a trial in force, however much is proven."""
        verdict = change.verdict
        self._state.promote(tx, trial, now)
        save_trial(tx, trial)
        self._state.decide(tx, "promote", trial, verdict.reason, now, verdict.proof, who=who)

    def confirm(self, tx: sa.Connection, trial: Trial, reason: str, now: float, who: str) -> None:
        """Make a trial a candidate for promotion because a person wants it."""
        self._state.confirm(tx, trial)
        self._state.decide(tx, "start", trial, reason, now, who=who)

    def _recheck(self, busy: set[int], now: float, means: Means) -> Assignment | None:
        trial = self.promoted
        if trial is None or trial.number in busy:
            return None
        if not self.recheck_due(now, live=means.pool is None):
            return None
        return self._work(Rechecking(trial, Recheck(trial.rechecks)), means)

    def _duel(self, busy: set[int], means: Means) -> Assignment | None:
        for trial in self.trials.values():
            if trial.confirmation and not trial.fate and trial.number not in busy:
                work = self._work(self._next_duel(trial), means)
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

    def _work(self, stage: Stage, means: Means) -> Assignment | None:
        baseline = stage.baseline(self._state)
        if not (means.within.allows(baseline) and means.within.allows(stage.trial.config)):
            return None
        have = len({pair.batch for pair in stage.pairs})
        wanted = stage.limit(self._state) - have
        if means.pool is None:
            # A promoted config was verified before it came to this.
            verify = not isinstance(stage, Rechecking)
            return Assignment(stage, baseline, None, wanted, verify, False) if wanted > 0 else None
        left = fresh(means.pool, stage.trial, stage.phase)
        wanted = min(wanted, _STEPS_PER_TASK)
        if not left or wanted <= 0:
            return None
        return Assignment(
            stage, baseline, left[:wanted], wanted, verify=have == 0, last=len(left) <= wanted
        )
