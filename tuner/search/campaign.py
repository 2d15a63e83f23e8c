"""One bucket's way from first trial to promotion, and back when a promotion goes bad.

Every candidate is screened on a few steps; these select and never decide. The best is then
confirmed on other steps against the default, and before that against what is promoted now. What was
promoted is measured against the default on fresh steps again: soon, then from time to time. What
these refute is rolled back.

    screen -> pruned | complete -> confirm:<k>:<opponent> ... -> promoted | rejected
    promoted -> recheck:<n> -> promoted | rolled back
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import sqlalchemy as sa

from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import Outcome, Pair
from tuner.search.judge import Verdict, judge, screened_out, step_speedups
from tuner.search.plan import RECHECK_STEPS, Plan
from tuner.store.rows import Trial, add_pairs, save_trial
from tuner.traffic.steps import RECHECK, SCREEN


class Change(NamedTuple):
    """A change of the bucket's table entry; trial None takes the entry out."""

    trial: Trial | None
    verdict: Verdict


class Campaign(Plan):
    """What a report means for a bucket: the second half of its state machine."""

    def report(
        self, tx: sa.Connection, trial: Trial, phase: str, outcome: Outcome, reason: str,
        new: list[Pair], now: float, *, last: bool = False,
    ) -> Change | None:  # fmt: skip
        """File what a task brought; a Change tells the caller to publish.

        last  there are no other steps to judge by for now
        """
        trial.updated = now
        add_pairs(tx, trial, phase, new, now)
        pairs = trial.pairs.setdefault(phase, [])
        pairs += new
        change = None
        if outcome != "measured":
            change = self._unmeasured(tx, trial, phase, outcome, reason, now)
        elif phase == SCREEN:
            self._screened(tx, trial, pairs, now)
        elif phase.startswith(RECHECK):
            change = self._rechecked(tx, trial, pairs, now, last=last)
        else:
            change = self._dueled(tx, trial, phase, pairs, now)
        save_trial(tx, trial)
        return change

    def _screened(self, tx: sa.Connection, trial: Trial, pairs: list[Pair], now: float) -> None:
        lost = trial.origin != "default" and screened_out(pairs)
        speedups = step_speedups(pairs)
        if not speedups or (not lost and len(speedups) < self._settings.screen_steps):
            return
        median = statistics.median(speedups)
        trial.value = -math.log(median)
        trial.state = "pruned" if lost else "complete"
        self.study.tell(trial.config, trial.value)
        if lost:
            trial.reason = f"slower than the default on all of {len(speedups)} steps"
            verdict = Verdict("not better", trial.reason, len(pairs), len(speedups), median)
            self._decide(tx, "prune", trial, trial.reason, now, verdict)

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
            return self._roll_back(tx, trial, Verdict("not better", trial.reason), now)
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
            self._decide(tx, "keep", trial, trial.reason, now, verdict)
            return None
        if not phase.endswith(":default"):
            return None
        if self.promoted is not None:
            self.promoted.verdict = "superseded"
            save_trial(tx, self.promoted)
        trial.verdict, self.promoted, self.checked = "promoted", trial, now
        self._decide(tx, "promote", trial, verdict.reason, now, verdict)
        return Change(trial, verdict)

    def _rechecked(
        self, tx: sa.Connection, trial: Trial, pairs: list[Pair], now: float, *, last: bool
    ) -> Change | None:
        limit = MIN_STEPS if last else RECHECK_STEPS
        verdict = judge(
            pairs, alpha=self._settings.alpha, min_speedup=1.0, max_steps=limit, harm=True
        )
        if verdict.outcome == "not better":
            return self._roll_back(tx, trial, verdict, now)
        if verdict.outcome == "better":
            trial.rechecks += 1
            self.checked = now
        return None

    def _roll_back(self, tx: sa.Connection, trial: Trial, verdict: Verdict, now: float) -> Change:
        trial.verdict, self.promoted = "rolled back", None
        self._extend()
        reason = f"re-check: {verdict.reason}"
        self._decide(tx, "rollback", trial, reason, now, verdict, alert=True)
        return Change(None, verdict)
