"""What to measure next for one bucket: the search, its confirmations and re-checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa

from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import TableEntry, require_bearable
from tuner.messages import Pair, StudyKey
from tuner.search.judge import Verdict, judge, spent_alpha
from tuner.search.study import Study, speedup_of
from tuner.settings import TunerSettings
from tuner.store.rows import Decision, Trial, add_decision, insert_trial, save_trial
from tuner.traffic.samples import Sample
from tuner.traffic.steps import RECHECK, SCREEN, fresh

RECHECK_STEPS = 24
# A task has no more steps than this, so that a bad candidate is found out early.
_STEPS_PER_TASK = 8
# Trials between two looks for a candidate worth confirming: early gains are published early.
_TRIALS_PER_LOOK = 8


class Work(NamedTuple):
    """What to measure next: `trial.config` against `baseline`, pairs filed under `phase`.

    steps  what to measure them on
    last   whether no other steps are left for this phase
    """

    trial: Trial
    phase: str
    baseline: PodConfig
    steps: list[Sample]
    verify: bool
    last: bool


class Plan:
    """State of one bucket's search. Methods that take a transaction write what they change.

    neighbours  asks for configs that were promoted for similar buckets

    promoted  the trial whose config is in force, None when the default is
    checked   when that was last compared with the default
    rested    since when the search rests, None while it goes on
    """

    def __init__(
        self,
        key: StudyKey,
        study: Study,
        trials: list[Trial],
        promoted: TableEntry | None,
        settings: TunerSettings,
        now: float,
        neighbours: Callable[[], list[PodConfig]],
    ) -> None:
        self.key, self.study, self._settings = key, study, settings
        self._neighbours = neighbours
        self.trials = {trial.number: trial for trial in trials}
        self.promoted = self.trials.get(promoted.evidence.trial) if promoted is not None else None
        self.checked = now
        self._budget = settings.trials
        self.rested: float | None = now if self._measured() >= self._budget else None
        self._looked = 0
        self._pool: list[Sample] = []

    @property
    def resting(self) -> bool:
        """Whether the search is over for now."""
        return self.rested is not None

    def recheck_due(self, now: float) -> bool:
        """Whether what is promoted should be measured against the default again."""
        if self.promoted is None:
            return False
        wait = self._settings.recheck_seconds * min(1.0, 2.0**self.promoted.rechecks / 16)
        return now - self.checked >= wait

    def next_work(
        self, tx: sa.Connection, busy: set[int], now: float, pool: list[Sample]
    ) -> Work | None:
        """What to measure now; None when all of it is being measured or the bucket rests.

        busy  numbers of trials that a worker holds
        pool  distinct steps of the bucket's traffic; a phase that has used them waits for others
        """
        self._pool = pool
        work = self._recheck(busy, now) or self._confirmation(busy)
        if work is not None:
            return work
        for trial in self.trials.values():
            if trial.state == "running" and trial.number not in busy:
                return self._screen(trial)
        if self.resting and not self._reopen(now):
            return None
        if self._look(tx, now, final=False):
            return self._confirmation(busy)
        if self._measured() + len(busy) < self._budget:
            asked = self._ask(tx, now)
            if asked is not None:
                return self._screen(asked)
        if busy:
            return None
        if self._look(tx, now, final=True):
            return self._confirmation(busy)
        self._rest(tx, now)
        return None

    def _measured(self) -> int:
        return sum(t.value is not None or t.state == "running" for t in self.trials.values())

    def _screen(self, trial: Trial) -> Work | None:
        return self._work(trial, SCREEN, self.study.default, self._settings.screen_steps)

    def _work(self, trial: Trial, phase: str, baseline: PodConfig, limit: int) -> Work | None:
        have = len({pair.batch for pair in trial.pairs.get(phase, ())})
        left = fresh(self._pool, trial, phase)
        wanted = min(limit - have, _STEPS_PER_TASK)
        if not left or wanted <= 0:
            return None
        return Work(
            trial, phase, baseline, left[:wanted], verify=have == 0, last=len(left) <= wanted
        )

    def _recheck(self, busy: set[int], now: float) -> Work | None:
        trial = self.promoted
        if trial is None or trial.number in busy or not self.recheck_due(now):
            return None
        phase = f"{RECHECK}:{trial.rechecks}"
        return self._work(trial, phase, self.study.default, RECHECK_STEPS)

    def _confirmation(self, busy: set[int]) -> Work | None:
        for trial in self.trials.values():
            if trial.confirmation and not trial.verdict and trial.number not in busy:
                rival = self.promoted
                phase = f"confirm:{trial.confirmation}:default"
                baseline = self.study.default
                if rival is not None:
                    against = f"confirm:{trial.confirmation}:{rival.number}"
                    if self._judge(trial, trial.pairs.get(against, [])).outcome != "better":
                        phase, baseline = against, rival.config
                work = self._work(trial, phase, baseline, self._settings.confirm_steps)
                if work is not None:
                    return work
        return None

    def _ask(self, tx: sa.Connection, now: float) -> Trial | None:
        """A new feasible trial; infeasible proposals on the way are filed as pruned."""
        while (proposal := self.study.propose()) is not None:
            trial = insert_trial(tx, self.key, proposal.config, origin=proposal.origin, now=now)
            self.trials[trial.number] = trial
            if trial.number == 0:
                reason = "traffic seen, no study yet: default measured first"
                add_decision(tx, Decision(now, "start", self.key, reason))
            refused = proposal.infeasible or self._unbearable(proposal.config)
            if not refused:
                return trial
            trial.state, trial.reason = "pruned", f"infeasible: {refused}"
            save_trial(tx, trial)
        return None

    def _unbearable(self, config: PodConfig) -> str:
        """Why no table may hold `config` for this bucket, empty when one may."""
        try:
            require_bearable(self.key.parsed()[2], config)
        except ConfigInfeasibleError as error:
            return str(error)
        return ""

    def _look(self, tx: sa.Connection, now: float, *, final: bool) -> bool:
        """Pick the best trial that nobody tried to confirm, if it looks worth it."""
        done = [t for t in self.trials.values() if t.state == "complete"]
        if not final and len(done) - self._looked < _TRIALS_PER_LOOK:
            return False
        self._looked = len(done)
        goal = self._settings.min_speedup * (_speedup(self.promoted) if self.promoted else 1.0)
        fresh = [t for t in done if not t.confirmation and t.origin != "default"]
        trial = min(fresh, key=lambda t: (t.value, t.number), default=None)
        if trial is None or _speedup(trial) < goal:
            return False
        trial.confirmation = 1 + max(t.confirmation for t in self.trials.values())
        save_trial(tx, trial)
        return True

    def _judge(self, trial: Trial, pairs: list[Pair]) -> Verdict:
        return judge(
            pairs,
            alpha=spent_alpha(self._settings.alpha, trial.confirmation),
            min_speedup=self._settings.min_speedup,
            max_steps=self._settings.confirm_steps,
        )

    def _rest(self, tx: sa.Connection, now: float) -> None:
        self.rested = now
        if self.promoted is None:
            reason = f"default is best: none of {self._measured()} trials was confirmed faster"
        else:
            reason = f"trial {self.promoted.number} stays: no further gain was confirmed"
        self._decide(tx, "keep", None, reason, now)

    def _reopen(self, now: float) -> bool:
        assert self.rested is not None
        if now - self.rested < self._settings.revisit_seconds:
            return False
        self._extend()
        return True

    def _extend(self) -> None:
        """Open the search again for some more trials, what neighbours found since first."""
        self.rested = None
        self._budget = self._measured() + self._settings.revisit_trials
        self.study.revisit(self._neighbours())

    def _decide(
        self, tx: sa.Connection, kind: str, trial: Trial | None, reason: str, now: float,
        verdict: Verdict | None = None, *, alert: bool = False,
    ) -> None:  # fmt: skip
        number, short = (None, "") if trial is None else (trial.number, trial.config.short())
        found = verdict or Verdict("open", "")
        decision = Decision(
            now, kind, self.key, reason, number, short, found.pairs, found.steps, found.speedup,
            found.lower_bound, alert,
        )  # fmt: skip
        add_decision(tx, decision)


def _speedup(trial: Trial) -> float:
    return speedup_of(trial.value) if trial.value is not None else 1.0
