"""One trial in one phase: what to measure for it, and what the evidence that comes of it means.

Where the evidence is from makes no difference: a stage takes what a worker was asked for and what
somebody measured unasked alike.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import statistics
from typing import NamedTuple

import sqlalchemy as sa

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import LivePair, Outcome, Pair, Proof
from tuner.phases import SCREEN, Duel, Phase, Recheck, Screen
from tuner.search.judge import Verdict, judge, screened_out, spent_alpha, step_speedups
from tuner.search.state import State
from tuner.store.rows import Trial

RECHECK_STEPS = 24


class Change(NamedTuple):
    """A change of the bucket's table entry; trial None takes the entry out.

    method  how the evidence was measured: `replay`, `live`, `mixed`, or `operator`: not enough was
    """

    trial: Trial | None
    verdict: Verdict
    method: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What somebody measured of a trial, or why nothing could be.

    pairs   of the phase's baseline and the trial's config
    reason  empty only for `measured`
    last    there are no other steps to judge by for now
    broke   it may have broken what ran it
    """

    trial: int
    phase: Phase
    pairs: list[Pair]
    outcome: Outcome = "measured"
    reason: str = ""
    last: bool = False
    broke: bool = False

    @property
    def bars(self) -> bool:
        """Whether the config must not be used anywhere any more."""
        return self.outcome == "mismatch" or self.broke


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """See the module. `take` gets a finding whose pairs `trial` has already."""

    trial: Trial
    phase: Phase

    @property
    def pairs(self) -> list[Pair]:
        """All that was measured in this phase so far."""
        return self.trial.pairs.get(self.phase, [])

    def baseline(self, state: State) -> PodConfig:
        """What the trial's config is measured against."""
        return state.study.default

    @abc.abstractmethod
    def limit(self, state: State) -> int:
        """Distinct steps that the phase takes at most."""

    @abc.abstractmethod
    def take(self, state: State, tx: sa.Connection, finding: Finding, now: float) -> Change | None:
        """Decide by the evidence so far; a Change is to be published."""

    @abc.abstractmethod
    def fail(self, state: State, tx: sa.Connection, now: float) -> Change | None:
        """The trial could not be measured; trial.reason says why, and that is filed."""


class Screening(Stage):
    """Every candidate's first stage: pruned, or complete and worth what Optuna is told."""

    def limit(self, state: State) -> int:
        """Few: many candidates are screened."""
        return state.settings.screen_steps

    def take(self, state: State, tx: sa.Connection, finding: Finding, now: float) -> Change | None:
        """Complete, or pruned early when it is clearly slower."""
        trial, speedups = self.trial, step_speedups(self.pairs)
        lost = trial.origin != "default" and screened_out(self.pairs)
        if not speedups or (not lost and len(speedups) < self.limit(state)):
            return None
        median = statistics.median(speedups)
        trial.value = -math.log(median)
        trial.state = "pruned" if lost else "complete"
        state.study.tell(trial.config, trial.value)
        if lost:
            trial.reason = f"slower than the default on all of {len(speedups)} steps"
            proof = Proof(len(self.pairs), len(speedups), median)
            state.decide(tx, "prune", trial, trial.reason, now, proof)
        return None

    def fail(self, state: State, tx: sa.Connection, now: float) -> Change | None:
        """Pruned: Optuna learns that it does not run."""
        self.trial.state = "pruned"
        state.study.tell(self.trial.config, None)
        return None


class Duelling(Stage):
    """The best candidate on steps that did not choose it: promoted or rejected."""

    phase: Duel

    def baseline(self, state: State) -> PodConfig:
        """The default, or what is promoted now."""
        if self.phase.against is None:
            return state.study.default
        return state.trials[self.phase.against].config

    def limit(self, state: State) -> int:
        """As many as one promotion may take."""
        return state.settings.confirm_steps

    def verdict(self, state: State) -> Verdict:
        """What the pairs say so far."""
        return judge(
            self.pairs,
            alpha=spent_alpha(state.settings.alpha, self.trial.confirmation),
            min_speedup=state.settings.min_speedup,
            max_steps=state.settings.confirm_steps,
        )

    def take(self, state: State, tx: sa.Connection, finding: Finding, now: float) -> Change | None:
        """Rejected, promoted when the default is beaten, or not decided yet."""
        trial, verdict = self.trial, self.verdict(state)
        if verdict.outcome == "open":
            return None
        if verdict.outcome == "not better":
            trial.fate, trial.reason = "rejected", f"{self.phase}: {verdict.reason}"
            state.decide(tx, "keep", trial, trial.reason, now, verdict.proof)
            return None
        if self.phase.against is not None:
            return None
        state.promote(tx, trial, now)
        state.decide(tx, "promote", trial, verdict.reason, now, verdict.proof)
        return Change(trial, verdict, _method(self.pairs))

    def fail(self, state: State, tx: sa.Connection, now: float) -> Change | None:
        """Rejected."""
        return _refute(state, tx, self.trial, now)


class Rechecking(Stage):
    """What is promoted, on fresh steps again: it stays or is rolled back."""

    phase: Recheck

    def limit(self, state: State) -> int:
        """As many as a proof that still holds needs."""
        return RECHECK_STEPS

    def take(self, state: State, tx: sa.Connection, finding: Finding, now: float) -> Change | None:
        """Kept, rolled back, or not decided yet."""
        if self.trial is not state.promoted:
            # Another one was promoted meanwhile: this says nothing about it.
            return None
        verdict = judge(
            self.pairs,
            alpha=state.settings.alpha,
            min_speedup=1.0,
            max_steps=MIN_STEPS if finding.last else RECHECK_STEPS,
            harm=True,
        )
        if verdict.outcome == "not better":
            return _roll_back(state, tx, self.trial, verdict, now)
        if verdict.outcome == "better":
            state.held(tx, self.trial, step_speedups(self.pairs), now)
        return None

    def fail(self, state: State, tx: sa.Connection, now: float) -> Change | None:
        """Rolled back: it is not to be trusted any more."""
        return _refute(state, tx, self.trial, now)


def _method(pairs: list[Pair]) -> str:
    live = sum(isinstance(pair, LivePair) for pair in pairs)
    return "replay" if not live else "live" if live == len(pairs) else "mixed"


def _refute(state: State, tx: sa.Connection, trial: Trial, now: float) -> Change | None:
    """What can no longer be measured is no candidate, and not promoted any more."""
    if trial is state.promoted:
        return _roll_back(state, tx, trial, Verdict("not better", trial.reason), now)
    trial.fate = "rejected"
    return None


def _roll_back(
    state: State, tx: sa.Connection, trial: Trial, verdict: Verdict, now: float
) -> Change:
    state.roll_back(trial)
    reason = f"re-check: {verdict.reason}"
    state.decide(tx, "rollback", trial, reason, now, verdict.proof, alert=True)
    return Change(None, verdict)


def stage_of(trial: Trial, phase: Phase) -> Stage:
    """The stage of a trial in a phase."""
    match phase:
        case Screen():
            return Screening(trial, phase)
        case Duel():
            return Duelling(trial, phase)
        case Recheck():
            return Rechecking(trial, phase)


def screening(trial: Trial) -> Stage:
    """The stage that every trial begins with."""
    return Screening(trial, SCREEN)
