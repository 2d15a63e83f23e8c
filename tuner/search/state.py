"""What is known of one bucket's search: its trials, what is promoted, and when it rests.

Everything that must outlive the process is in the trials' rows; the rest starts anew.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import TableEntry, require_bearable
from tuner.messages import Proof, StudyKey
from tuner.search.study import Study, speedup_of
from tuner.settings import TunerSettings
from tuner.store.rows import Decision, DecisionKind, Trial, add_decision, insert_trial, save_trial

# Trials between two looks for a candidate worth confirming: early gains are published early.
_TRIALS_PER_LOOK = 8


class State:
    """Methods that take a transaction write what they change.

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
        entry: TableEntry | None,
        settings: TunerSettings,
        now: float,
        neighbours: Callable[[], list[PodConfig]],
    ) -> None:
        self.key, self.study, self.settings = key, study, settings
        self._neighbours = neighbours
        self.trials = {trial.number: trial for trial in trials}
        self.promoted = self.trials.get(entry.evidence.trial) if entry is not None else None
        self.checked = now
        self._budget = settings.trials
        self.rested: float | None = now if self._measured() >= self._budget else None
        self._looked = 0

    def recheck_due(self, now: float) -> bool:
        """Whether what is promoted should be measured against the default again."""
        if self.promoted is None:
            return False
        wait = self.settings.recheck_seconds * min(1.0, 2.0**self.promoted.rechecks / 16)
        return now - self.checked >= wait

    def may_ask(self, busy: int) -> bool:
        """Whether one more trial may be made while `busy` are being measured."""
        return self._measured() + busy < self._budget

    def ask(self, tx: sa.Connection, now: float) -> Trial | None:
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

    def look(self, tx: sa.Connection, *, final: bool) -> bool:
        """Pick the best trial that nobody tried to confirm, if it looks worth it."""
        done = [t for t in self.trials.values() if t.state == "complete"]
        if not final and len(done) - self._looked < _TRIALS_PER_LOOK:
            return False
        self._looked = len(done)
        goal = self.settings.min_speedup * (_speedup(self.promoted) if self.promoted else 1.0)
        untried = [t for t in done if not t.confirmation and t.origin != "default"]
        trial = min(untried, key=lambda t: (t.value, t.number), default=None)
        if trial is None or _speedup(trial) < goal:
            return False
        trial.confirmation = 1 + max(t.confirmation for t in self.trials.values())
        save_trial(tx, trial)
        return True

    def promote(self, tx: sa.Connection, trial: Trial, now: float) -> None:
        """Put a candidate in the place of what was promoted."""
        if self.promoted is not None:
            self.promoted.fate = "superseded"
            save_trial(tx, self.promoted)
        trial.fate, self.promoted, self.checked = "promoted", trial, now

    def roll_back(self, trial: Trial) -> None:
        """The default is in force again, and the search goes on."""
        trial.fate, self.promoted = "rolled back", None
        self._extend()

    def rest(self, tx: sa.Connection, now: float) -> None:
        """End the search for now."""
        self.rested = now
        if self.promoted is None:
            reason = f"default is best: none of {self._measured()} trials was confirmed faster"
        else:
            reason = f"trial {self.promoted.number} stays: no further gain was confirmed"
        self.decide(tx, "keep", None, reason, now)

    def rests(self, now: float) -> bool:
        """Whether the search rests; one that has rested for long enough is opened again."""
        if self.rested is None:
            return False
        if now - self.rested < self.settings.revisit_seconds:
            return True
        self._extend()
        return False

    def decide(
        self, tx: sa.Connection, kind: DecisionKind, trial: Trial | None, reason: str, now: float,
        proof: Proof | None = None, *, alert: bool = False,
    ) -> None:  # fmt: skip
        """File a decision of this bucket."""
        number, short = (None, "") if trial is None else (trial.number, trial.config.short())
        decision = Decision(
            now, kind, self.key, reason, number, short, proof or Proof(), alert=alert
        )
        add_decision(tx, decision)

    def _measured(self) -> int:
        return sum(t.value is not None or t.state == "running" for t in self.trials.values())

    def _extend(self) -> None:
        """Open the search again for some more trials, what neighbours found since first."""
        self.rested = None
        self._budget = self._measured() + self.settings.revisit_trials
        self.study.revisit(self._neighbours())

    def _unbearable(self, config: PodConfig) -> str:
        """Why no table may hold `config` for this bucket, empty when one may."""
        try:
            require_bearable(self.key.parsed()[2], config)
        except ConfigInfeasibleError as error:
            return str(error)
        return ""


def _speedup(trial: Trial) -> float:
    return speedup_of(trial.value) if trial.value is not None else 1.0
