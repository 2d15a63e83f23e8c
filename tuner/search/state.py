"""What is known of one bucket's search: its trials, what is promoted, and when it rests.

Everything that must outlive the process is in the trials' rows; the rest starts anew.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import sqlalchemy as sa

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import TableEntry
from tuner.messages import Proof, StudyKey
from tuner.phases import SCREEN
from tuner.search.axes import Known
from tuner.search.drift import Falling
from tuner.search.gains import UNKNOWN_GAIN, aged, confirmed, promised, speedup, watched
from tuner.search.judge import step_speedups
from tuner.search.resting import Rest
from tuner.search.space import Within, unbearable
from tuner.search.study import Study
from tuner.settings import TunerSettings
from tuner.store.rows import Decision, DecisionKind, Trial, add_decision, insert_trial, save_trial

# Trials between two looks for a candidate worth confirming: early gains are published early.
_TRIALS_PER_LOOK = 8
# Or at once, where all of a trial's steps were faster by so many times what a promotion needs.
_SURE = 2.0


class State:
    """Methods that take a transaction write what they change.

    neighbours  asks for configs that were promoted for similar buckets
    share       asks what part of all attention time the bucket takes at a time

    promoted  the trial whose config is in force, None when the default is
    checked   when that was last compared with the default
    rest      of the search, or that it goes on
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
        share: Callable[[float], float],
    ) -> None:
        self.key, self.study, self.settings = key, study, settings
        self._neighbours = neighbours
        self.trials = {trial.number: trial for trial in trials}
        self.promoted = self.trials.get(entry.evidence.trial) if entry is not None else None
        self.checked = now
        self._budget = settings.trials
        self.rest = Rest(settings.revisit_seconds, share)
        if self._measured() >= self._budget:
            self.rest.begin(now)
        self._looked = 0
        self._shunned: frozenset[PodConfig] = frozenset()
        # A restart may have come in the middle of a guard window.
        self._guarded = 0
        self._watch = watched(self.promoted) if self.promoted else None

    @property
    def promise(self) -> float:
        """What the search may still gain, as a share of the bucket's time.

        A candidate that waits for its confirmation: what screening says of it. Else what the next
        trials are expected to improve on the best one by; while only guesses are tried, what a
        search finds on average, less with every trial that has been made. 0 at rest.
        """
        waiting = [t for t in self.trials.values() if t.confirmation and not t.fate]
        if waiting:
            return max(UNKNOWN_GAIN, *(1 - 1 / speedup(trial) for trial in waiting))
        if self.rest.since is not None:
            return 0.0
        return promised(self._measured() / self.settings.trials, self.study.expects)

    def idle(self, now: float) -> bool:
        """Whether the search rests, and neither a check nor a trial waits."""
        if self.rest.over(now):
            return False
        waits = any(
            t.state == "running" or (t.confirmation and not t.fate) for t in self.trials.values()
        )
        return not waits and not self.recheck_due(now)

    def recheck_due(self, now: float, *, live: bool = False) -> bool:
        """Whether what is promoted should be measured against the default again.

        live  by a server, to which it costs nothing: what was just promoted is watched at once
        """
        if self.promoted is None:
            return False
        if live and self.promoted.rechecks <= self._guarded:
            return True
        wait = self.settings.recheck_seconds * min(1.0, 2.0**self.promoted.rechecks / 16)
        return now - self.checked >= wait

    def may_ask(self, busy: int) -> bool:
        """Whether one more trial may be made while `busy` are being measured."""
        return self._measured() + busy < self._budget

    def ask(self, tx: sa.Connection, within: Within, now: float) -> Trial | None:
        """A new feasible trial; infeasible proposals on the way are filed as pruned."""
        while (proposal := self.study.propose(within)) is not None:
            trial = insert_trial(tx, self.key, proposal.config, origin=proposal.origin, now=now)
            self.trials[trial.number] = trial
            if trial.number == 0:
                reason = "traffic seen, no study yet: default measured first"
                add_decision(tx, Decision(now, "start", self.key, reason))
            refused = proposal.infeasible or unbearable(self.key.parsed()[2], proposal.config)
            if not refused:
                return trial
            trial.state, trial.reason = "pruned", f"infeasible: {refused}"
            save_trial(tx, trial)
        return None

    def look(self, tx: sa.Connection, within: Within, *, final: bool) -> bool:
        """Pick the best trial that nobody tried to confirm, if it looks worth it."""
        done = [t for t in self.trials.values() if t.state == "complete"]
        due = final or len(done) - self._looked >= _TRIALS_PER_LOOK
        if due:
            self._looked = len(done)
        in_force = self._watch.confirmed if self._watch else 1.0
        untried = [
            t for t in done
            if not t.confirmation and not t.fate and t.origin != "default"
            and within.allows(t.config)
        ]  # fmt: skip
        trial = min(untried, key=lambda t: (t.value, t.number), default=None)
        if trial is None or speedup(trial) < in_force * self.settings.min_speedup:
            return False
        if not (due or self._is_sure(trial, in_force)):
            return False
        self.confirm(tx, trial)
        return True

    def _is_sure(self, trial: Trial, in_force: float) -> bool:
        """Whether a gain is so plain that its confirmation waits for no other trials."""
        if any(t.confirmation and not t.fate for t in self.trials.values()):
            return False
        least = in_force * (1 + _SURE * (self.settings.min_speedup - 1))
        steps = step_speedups(trial.pairs.get(SCREEN, ()))
        return speedup(trial) >= least and min(steps, default=0.0) > in_force

    def confirm(self, tx: sa.Connection, trial: Trial) -> None:
        """Make a trial the next candidate for promotion."""
        trial.confirmation = 1 + max(t.confirmation for t in self.trials.values())
        save_trial(tx, trial)

    def hear(self, config: PodConfig, known: list[Known]) -> None:
        """A similar bucket has just promoted `config`: it is the next one to try.

        known  what such buckets found
        """
        self.study.learn(known)
        if self.rest.since is None:
            self.study.revisit([config])

    def shun(self, tx: sa.Connection, barred: frozenset[PodConfig]) -> None:
        """Never propose these, and give up trials of them."""
        if barred == self._shunned:
            return
        self._shunned = barred
        self.study.shun(barred)
        for trial in self.trials.values():
            if trial.config in barred and not trial.fate:
                if trial.state == "running":
                    trial.state = "pruned"
                    self.study.tell(trial.config, None)
                trial.fate, trial.reason = "rejected", trial.reason or "failed in another bucket"
                save_trial(tx, trial)

    def promote(self, tx: sa.Connection, trial: Trial, now: float) -> None:
        """Put a candidate in the place of what was promoted."""
        if self.promoted is not None:
            self.promoted.fate = "superseded"
            save_trial(tx, self.promoted)
        trial.fate, self.promoted, self.checked = "promoted", trial, now
        self._guarded = trial.rechecks
        self._watch = Falling(confirmed(trial))

    def held(self, tx: sa.Connection, trial: Trial, speedups: list[float], now: float) -> None:
        """What is promoted passed a re-check on these steps; one that gained less opens the search.

        The config stays in force: it is still faster than the default.
        """
        trial.rechecks += 1
        self.checked = now
        if self._watch is not None and self._watch.add(speedups):
            gains = statistics.median(speedups)
            change = f"from {self._watch.confirmed:.3f} to {gains:.3f}"
            self.decide(tx, "start", trial, f"its gain fell {change}: the search goes on", now)
            self._watch = Falling(gains)
            self._extend()

    def roll_back(self, trial: Trial) -> None:
        """The default is in force again, and the search goes on."""
        trial.fate, self.promoted, self._watch = "rolled back", None, None
        self._extend()

    def end(self, tx: sa.Connection, now: float) -> None:
        """End the search for now."""
        self.rest.begin(now)
        if self.promoted is None:
            reason = f"default is best: none of {self._measured()} trials was confirmed faster"
        else:
            reason = f"trial {self.promoted.number} stays: no further gain was confirmed"
        self.decide(tx, "keep", None, reason, now)

    def rests(self, now: float) -> bool:
        """Whether the search rests; one that has rested for long enough is opened again."""
        if self.rest.since is not None and self.rest.over(now):
            self._extend()
        return self.rest.since is not None

    def decide(
        self, tx: sa.Connection, kind: DecisionKind, trial: Trial | None, reason: str, now: float,
        proof: Proof | None = None, *, alert: bool = False, who: str = "",
    ) -> None:  # fmt: skip
        """File a decision of this bucket."""
        number, short = (None, "") if trial is None else (trial.number, trial.config.short())
        decision = Decision(
            now, kind, self.key, reason, number, short, proof or Proof(), alert=alert, who=who
        )
        add_decision(tx, decision)

    def _measured(self) -> int:
        return sum(t.value is not None or t.state == "running" for t in self.trials.values())

    def _extend(self) -> None:
        """Open the search for more trials: what neighbours found since first, old ones next."""
        self.rest.end()
        self._budget = self._measured() + self.settings.revisit_trials
        again = aged(self.trials.values(), self.settings.revisit_trials)
        self.study.revisit(self._neighbours(), again)
