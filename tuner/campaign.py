"""One bucket's way from first trial to promotion, and back when a promotion goes bad.

Every candidate is screened with a few pairs; these select and never decide. The best is then
confirmed with fresh pairs against the default, and before that against what is promoted now. What
was promoted is measured against the default again from time to time.

    screen -> pruned | complete -> confirm:<k>:<opponent> ... -> promoted | rejected
    promoted -> recheck:<n> -> promoted | rolled back
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import sqlalchemy as sa

from pod_integrate.config import PodConfig
from pod_integrate.table import TableEntry
from tuner.model import Outcome, Pair, StudyKey
from tuner.promote import Verdict, judge, screened_out, spent_alpha
from tuner.records import Decision, Trial, add_decision, add_pairs, insert_trial, save_trial
from tuner.settings import TunerSettings
from tuner.study import Study, speedup_of

SCREEN = "screen"
# Trials between two looks for a candidate worth confirming: early gains are published early.
_TRIALS_PER_LOOK = 8
_RECHECK_PAIRS = 60


class Work(NamedTuple):
    """What to measure next: `trial.config` against `baseline`, pairs filed under `phase`."""

    trial: Trial
    phase: str
    baseline: PodConfig
    max_pairs: int
    verify: bool


class Change(NamedTuple):
    """A change of the bucket's table entry; trial None takes the entry out."""

    trial: Trial | None
    verdict: Verdict
    pairs: list[Pair]


class Campaign:
    """State of one bucket. Methods that take a transaction write what they change.

    promoted  the bucket's table entry in force, None when the default is
    """

    def __init__(
        self,
        key: StudyKey,
        study: Study,
        trials: list[Trial],
        promoted: TableEntry | None,
        settings: TunerSettings,
        now: float,
    ) -> None:
        self.key, self.study, self._settings = key, study, settings
        self.trials = {trial.number: trial for trial in trials}
        self.promoted = self.trials.get(promoted.evidence.trial) if promoted is not None else None
        self.checked = now
        self._budget = settings.trials
        self.rested: float | None = now if self._measured() >= self._budget else None
        self._looked = 0

    @property
    def resting(self) -> bool:
        """Whether the search is over for now."""
        return self.rested is not None

    def best(self) -> Trial | None:
        """The trial with the best screening so far, the default excepted."""
        done = [t for t in self.trials.values() if t.value is not None and t.origin != "default"]
        return min(done, key=lambda t: (t.value, t.number), default=None)

    def next_work(self, tx: sa.Connection, busy: set[int], now: float) -> Work | None:
        """What to measure now; None when all of it is being measured or the bucket rests.

        busy  numbers of trials that a worker holds
        """
        work = self._recheck(busy, now) or self._confirmation(busy)
        if work is not None:
            return work
        for trial in self.trials.values():
            if trial.state == "running" and trial.number not in busy:
                return self._work(trial, SCREEN, self.study.default, self._settings.screen_pairs)
        if self.resting and not self._reopen(now):
            return None
        if self._look(tx, now, final=False):
            return self._confirmation(busy)
        if self._measured() + len(busy) < self._budget:
            asked = self._ask(tx, now)
            if asked is not None:
                return self._work(asked, SCREEN, self.study.default, self._settings.screen_pairs)
        if busy:
            return None
        if self._look(tx, now, final=True):
            return self._confirmation(busy)
        self._rest(tx, now)
        return None

    def report(
        self, tx: sa.Connection, trial: Trial, phase: str, outcome: Outcome, reason: str,
        new: list[Pair], now: float,
    ) -> Change | None:  # fmt: skip
        """File what a task brought; a Change tells the caller to publish."""
        trial.updated = now
        add_pairs(tx, trial, phase, new, now)
        pairs = trial.pairs.setdefault(phase, [])
        pairs += new
        change = None
        if outcome != "measured":
            change = self._unmeasured(tx, trial, phase, outcome, reason, now)
        elif phase == SCREEN:
            self._screened(tx, trial, pairs, now)
        elif phase.startswith("recheck"):
            change = self._rechecked(tx, trial, pairs, now)
        else:
            change = self._dueled(tx, trial, phase, pairs, now)
        save_trial(tx, trial)
        return change

    def _measured(self) -> int:
        return sum(t.value is not None or t.state == "running" for t in self.trials.values())

    def _work(self, trial: Trial, phase: str, baseline: PodConfig, wanted: int) -> Work:
        have = len(trial.pairs.get(phase, ()))
        return Work(trial, phase, baseline, wanted - have, verify=have == 0)

    def _recheck(self, busy: set[int], now: float) -> Work | None:
        trial = self.promoted
        if trial is None or trial.number in busy:
            return None
        if now - self.checked < self._settings.recheck_seconds:
            return None
        return self._work(trial, f"recheck:{trial.rechecks}", self.study.default, _RECHECK_PAIRS)

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
                return self._work(trial, phase, baseline, self._settings.confirm_pairs)
        return None

    def _ask(self, tx: sa.Connection, now: float) -> Trial | None:
        """A new feasible trial; infeasible proposals on the way are filed as pruned."""
        while (proposal := self.study.propose()) is not None:
            trial = insert_trial(tx, self.key, proposal.config, origin=proposal.origin, now=now)
            self.trials[trial.number] = trial
            if trial.number == 0:
                reason = "traffic seen, no study yet: default measured first"
                add_decision(tx, Decision(now, "start", self.key, reason))
            if not proposal.infeasible:
                return trial
            trial.state, trial.reason = "pruned", f"infeasible: {proposal.infeasible}"
            save_trial(tx, trial)
        return None

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
            max_pairs=self._settings.confirm_pairs,
        )

    def _screened(self, tx: sa.Connection, trial: Trial, pairs: list[Pair], now: float) -> None:
        lost = trial.origin != "default" and screened_out(pairs)
        if not lost and len(pairs) < self._settings.screen_pairs:
            return
        median = statistics.median(pair.speedup for pair in pairs)
        trial.value = -math.log(median)
        trial.state = "pruned" if lost else "complete"
        self.study.tell(trial.config, trial.value)
        if lost:
            trial.reason = f"slower than the default in all of {len(pairs)} pairs"
            self._decide(tx, "prune", trial, trial.reason, now, len(pairs), median)

    def _unmeasured(
        self, tx: sa.Connection, trial: Trial, phase: str, outcome: Outcome, reason: str, now: float
    ) -> Change | None:
        trial.reason = f"{outcome}: {reason}"
        kind = "mismatch" if outcome == "mismatch" else "prune"
        self._decide(tx, kind, trial, trial.reason, now, alert=outcome != "infeasible")
        if phase == SCREEN:
            trial.state = "pruned"
            self.study.tell(trial.config, None)
            return None
        if trial is self.promoted:
            return self._roll_back(tx, trial, judge_nothing(trial.reason), [], now)
        trial.verdict = "rejected"
        return None

    def _dueled(
        self, tx: sa.Connection, trial: Trial, phase: str, pairs: list[Pair], now: float
    ) -> Change | None:
        verdict = self._judge(trial, pairs)
        if verdict.outcome == "open":
            return None
        if verdict.outcome == "not better":
            trial.verdict, trial.reason = "rejected", f"{phase}: {verdict.reason}"
            self._decide(tx, "keep", trial, trial.reason, now, *verdict[2:5])
            return None
        if not phase.endswith(":default"):
            return None
        if self.promoted is not None:
            self.promoted.verdict = "superseded"
            save_trial(tx, self.promoted)
        trial.verdict, self.promoted, self.checked = "promoted", trial, now
        self._decide(tx, "promote", trial, verdict.reason, now, *verdict[2:5])
        return Change(trial, verdict, pairs)

    def _rechecked(
        self, tx: sa.Connection, trial: Trial, pairs: list[Pair], now: float
    ) -> Change | None:
        alpha = self._settings.alpha
        verdict = judge(pairs, alpha=alpha, min_speedup=1.0, max_pairs=_RECHECK_PAIRS, harm=True)
        if verdict.outcome == "not better":
            return self._roll_back(tx, trial, verdict, pairs, now)
        if verdict.outcome == "better":
            trial.rechecks += 1
            self.checked = now
        return None

    def _roll_back(
        self, tx: sa.Connection, trial: Trial, verdict: Verdict, pairs: list[Pair], now: float
    ) -> Change:
        trial.verdict, self.promoted = "rolled back", None
        self._decide(
            tx, "rollback", trial, f"re-check: {verdict.reason}", now, *verdict[2:5], alert=True
        )
        return Change(None, verdict, pairs)

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
        self.rested = None
        self._budget = self._measured() + self._settings.revisit_trials
        return True

    def _decide(
        self, tx: sa.Connection, kind: str, trial: Trial | None, reason: str, now: float,
        pairs: int = 0, speedup: float | None = None, lower_bound: float | None = None, *,
        alert: bool = False,
    ) -> None:  # fmt: skip
        number, short = (None, "") if trial is None else (trial.number, trial.config.short())
        decision = Decision(
            now, kind, self.key, reason, number, short, pairs, speedup, lower_bound, alert
        )
        add_decision(tx, decision)


def judge_nothing(reason: str) -> Verdict:
    """A verdict without pairs."""
    return Verdict("not better", reason, 0, None, None, 0.0)


def _speedup(trial: Trial) -> float:
    return speedup_of(trial.value) if trial.value is not None else 1.0
