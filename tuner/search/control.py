"""People's orders: pause and resume, promote, pin and roll back. Each is a decision with a name.

No order makes an unproven config permanent: what a person promoted is compared with the default
like every promotion, and rolled back when it is slower. Only a pin stops that.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import EVERYONE, Proof
from tuner.orders import Answer, BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder
from tuner.phases import Duel, Phase
from tuner.search.board import Board
from tuner.search.campaign import Campaign
from tuner.search.holds import Who
from tuner.search.judge import Verdict, bounds, step_speedups
from tuner.search.stages import Change
from tuner.store.rows import Trial


class Control:
    """Carries out orders on a board; `clock` returns Unix seconds."""

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self._board, self._clock = board, clock

    def pause(self, order: ServerOrder) -> Answer:
        """Nothing more to measure for a server: what it runs now ends with its next report."""
        self._board.holds.pause(order.server, _who(order), self._clock())
        return Answer(True, f"{_name(order.server)}: paused")

    def kill(self, order: Order) -> Answer:
        """The default everywhere, and nothing is measured, until everybody is resumed."""
        self._board.holds.kill(_who(order), self._clock())
        return Answer(True, "every table is without entries; resume all to put them in force again")

    def resume(self, order: ServerOrder) -> Answer:
        """End a pause; of everybody, also what `kill` did."""
        if self._board.holds.resume(order.server, _who(order), self._clock()):
            return Answer(True, f"{_name(order.server)}: resumed")
        return Answer(False, f"{order.server} is not paused")

    def pin(self, order: PinOrder) -> Answer:
        """Keep a bucket as it is; what is being measured there is given up."""
        holds, key, now = self._board.holds, order.key, self._clock()
        if order.pinned:
            holds.pin(key, _who(order), now)
            self._board.forget(key)
            # Now: an unpinned bucket's would come back with the next process.
            self._board.experiments.drop_forgotten(self._board.store)
            return Answer(True, f"{key.bucket}: pinned")
        if holds.unpin(key, _who(order), now):
            return Answer(True, f"{key.bucket}: tuned again")
        return Answer(False, f"{key.bucket} is not pinned")

    def roll_back(self, order: BucketOrder) -> Answer:
        """The default is in force again; the config is not promoted here any more."""
        if self._board.holds.is_pinned(order.key):
            return _pinned(order)
        reason = _reason("rolled back by hand", order)
        if self._board.roll_back(order.key, reason, self._clock(), who=order.who):
            return Answer(True, f"{order.bucket}: the default is in force")
        return Answer(False, f"nothing is promoted for {order.bucket}")

    def promote(self, order: PromoteOrder) -> Answer:
        """Put a trial in force, or, measured on too few steps, have it confirmed next."""
        board, key, now = self._board, order.key, self._clock()
        if board.holds.is_pinned(key):
            return _pinned(order)
        with board.store.read() as tx:
            campaign = board.campaign(tx, key, now)
        trial = campaign.trials.get(order.trial) if campaign is not None else None
        if campaign is None or trial is None:
            return Answer(False, f"{order.bucket} has no trial {order.trial}")
        if trial is campaign.promoted:
            return Answer(False, f"trial {order.trial} is in force already")
        if trial.config == campaign.default:
            return Answer(False, "the default needs no promotion: roll back")
        if trial.config in board.holds.barred(key.scope):
            return Answer(False, f"trial {order.trial} failed: {trial.reason}")
        pairs = [
            p for phase, taken in trial.pairs.items() if _against_default(phase) for p in taken
        ]
        speedups = step_speedups(pairs)
        if len(speedups) < MIN_STEPS:
            return self._confirm(order, campaign, trial, len(speedups))
        lower = bounds(speedups, board.settings.alpha)[0] or min(speedups)
        proof = Proof(len(pairs), len(speedups), statistics.median(speedups), lower)
        verdict = Verdict("better", _reason("promoted by hand", order), proof)
        change = Change(trial, verdict, "operator")
        done = board.promote(key, trial, change, now, order.who)
        return Answer(done, f"trial {trial.number} is in force" if done else "no table can hold it")

    def _confirm(self, order: PromoteOrder, campaign: Campaign, trial: Trial, steps: int) -> Answer:
        few = f"trial {trial.number} was measured on {steps} of the {MIN_STEPS} steps that it needs"
        if trial.state == "running" or trial.fate or trial.confirmation:
            return Answer(False, few)
        with self._board.store.begin() as tx:
            campaign.confirm(tx, trial, _reason("confirmed next", order), self._clock(), order.who)
        return Answer(True, f"{few}: it is confirmed next")


def _against_default(phase: Phase) -> bool:
    return not isinstance(phase, Duel) or phase.against is None


def _who(order: Order) -> Who:
    return Who(order.who, order.why)


def _reason(what: str, order: Order) -> str:
    return f"{what}: {order.why}" if order.why else what


def _name(server: str) -> str:
    return "all servers and workers" if server == EVERYONE else server


def _pinned(order: BucketOrder) -> Answer:
    return Answer(False, f"{order.bucket} is pinned; unpin it first")
