"""Fluid simulation of CTAs that share their SM's tensor pipes, and L2 and DRAM with all SMs.

Between two events every CTA progresses at a constant rate. It never exceeds the rate it has alone;
where a resource is short, each CTA gets its demand or its weight's share, whichever is less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pod_integrate.model.demand import Demand
from pod_integrate.model.devices import Device
from pod_integrate.model.items import Array

# Events closer than this share of the time to the next one are handled together.
_SAME_EVENT = 0.02
_ROUNDS = 2
_TINY = 1e-12
# Tensor pipes and memory do not overlap freely: shares u and v of the two satisfy
# u ** KNEE + v ** KNEE <= 1. The model's one calibrated constant: 3 is nearest to the four fused
# times that FlashInfer published (4 % rms); infinity would be a perfect overlap.
KNEE = 3.0


class SimulatedCta(NamedTuple):
    """One CTA of a simulated launch: where it ran, what, when (seconds)."""

    sm: int
    slot: int
    op: str
    begin: float
    end: float


class Cta(NamedTuple):
    """The next CTA for an SM: its op and the demand to read row `row` of."""

    op: str
    demand: Demand
    row: int


class Sms:
    """All slots of a device, [SMs, slots]; an idle slot has rate limit 0."""

    def __init__(self, device: Device, slots: int) -> None:
        shape = (device.sms, slots)
        self.device = device
        self._bandwidth = device.dram_bytes * device.dram_share
        self.now = 0.0
        self.records: list[SimulatedCta] = []
        self.begin, self.fixed, self.left, self.limit = (np.zeros(shape) for _ in range(4))
        self.tensor, self.l2, self.dram, self.warps, self.in_flight = (
            np.zeros(shape) for _ in range(5)
        )
        self.busy = np.zeros(shape, dtype=bool)
        self.ops: list[list[str]] = [[""] * slots for _ in range(device.sms)]

    def run(self, draw: Callable[[int], Cta | None]) -> None:
        """Fill slots in the order in which they become free.

        draw  called with the SM of a free slot, returns the CTA that starts there; None: it stays
              free until another slot of its SM is
        """
        self._fill(draw, self._spread(~self.busy))
        while self.busy.any():
            touched = self._advance().any(axis=1, keepdims=True)
            self._fill(draw, self._spread(touched & ~self.busy))

    def running(self, sm: int) -> set[str]:
        """Ops of the CTAs that an SM runs now."""
        return {op for op, busy in zip(self.ops[sm], self.busy[sm], strict=True) if busy}

    def _spread(self, free: Array) -> list[tuple[int, int]]:
        """Slots of the mask `free`, emptiest SMs first: a grid is spread before it doubles up."""
        load = self.busy.sum(axis=1, keepdims=True) + free.cumsum(axis=1) - 1
        found = np.argwhere(free)
        order = np.lexsort((found[:, 0], load[free]))
        return [(int(sm), int(slot)) for sm, slot in found[order]]

    def _fill(self, draw: Callable[[int], Cta | None], free: list[tuple[int, int]]) -> None:
        for sm, slot in free:
            cta = draw(sm)
            if cta is not None:
                self._start(sm, slot, cta)

    def _start(self, sm: int, slot: int, cta: Cta) -> None:
        at, demand, i = (sm, slot), cta.demand, cta.row
        self.busy[at], self.left[at], self.begin[at] = True, 1.0, self.now
        self.ops[sm][slot] = cta.op
        self.fixed[at], self.limit[at] = demand.fixed[i], 1.0 / demand.alone[i]
        self.tensor[at], self.l2[at], self.dram[at] = demand.tensor[i], demand.l2[i], demand.dram[i]
        self.warps[at], self.in_flight[at] = demand.warps[i], demand.in_flight[i]

    def _advance(self) -> Array:
        """Go to the next event and return the mask of slots that it freed."""
        rates = self._rates()
        waiting = self.busy & (self.fixed > 0)
        running = self.busy & ~waiting
        until = np.full(self.busy.shape, np.inf)
        until[waiting] = self.fixed[waiting]
        until[running] = self.left[running] / rates[running]
        step = float(until[until <= until.min() * (1 + _SAME_EVENT)].max())
        self.now += step
        self.fixed[waiting] = np.where(until[waiting] <= step, 0.0, self.fixed[waiting] - step)
        self.left[running] -= rates[running] * step
        done = running & (until <= step)
        for sm, slot in np.argwhere(done):
            op, begin = self.ops[sm][slot], float(self.begin[sm, slot])
            self.records.append(SimulatedCta(int(sm), int(slot), op, begin, self.now))
        self.busy[done] = False
        return done

    def _rates(self) -> Array:
        """Progress per second of every slot, within all limits."""
        alone = np.where(self.busy & (self.fixed <= 0), self.limit, 0.0)
        by_tensor = by_l2 = by_dram = alone
        # What one resource holds back leaves room on the others: a second round hands that out.
        for _ in range(_ROUNDS):
            by_dram = np.minimum(alone, self._dram_limit(np.minimum(by_tensor, by_l2)))
            by_l2 = np.minimum(alone, self._l2_limit(np.minimum(by_tensor, by_dram)))
            wanted = np.minimum(by_dram, by_l2)
            by_tensor = np.minimum(alone, _limit(wanted, self.tensor, self.warps, 1.0))
        rates = np.minimum(wanted, by_tensor)
        rates = np.minimum(rates, self._dram_limit(rates))
        rates = np.minimum(rates, self._l2_limit(rates))
        slowed: Array = rates * self._overlap(rates)
        return slowed

    def _overlap(self, rates: Array) -> Array:
        """Factor by which each SM, [SMs, 1], slows down because it computes and loads at once."""
        memory = float((rates * self.dram).sum()) / self._bandwidth
        tensor = (rates * self.tensor).sum(axis=1, keepdims=True)
        factor: Array = np.minimum(1.0, (tensor**KNEE + memory**KNEE + _TINY) ** (-1 / KNEE))
        return factor

    def _dram_limit(self, wanted: Array) -> Array:
        return self._limit_across(wanted, self.dram, self._bandwidth)

    def _l2_limit(self, wanted: Array) -> Array:
        return self._limit_across(wanted, self.l2, self.device.l2_bytes)

    def _limit_across(self, wanted: Array, cost: Array, capacity: float) -> Array:
        rates, costs, weights = (part.reshape(1, -1) for part in (wanted, cost, self.in_flight))
        return _limit(rates, costs, weights, capacity).reshape(wanted.shape)


def _limit(wanted: Array, cost: Array, weight: Array, capacity: float) -> Array:
    """Rates at which each row uses at most `capacity` of a resource; inf where it is not short.

    wanted  rate of each slot if the resource were free
    cost    what one unit of progress takes of it
    """
    use = wanted * cost
    if not (use.sum(axis=1) > capacity).any():
        return np.full_like(wanted, np.inf)
    level = _water_level(use, np.where(use > 0, weight, 0.0), capacity)
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = level[:, None] * weight / cost
    return np.where(use > 0, limit, np.inf)


def _water_level(use: Array, weights: Array, capacity: float) -> Array:
    """The level h of each row at which sum(min(use, h * weight)) is the capacity; inf if none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(weights > 0, use / weights, -1.0)
    order = np.argsort(ratio, axis=1)
    sorted_use = np.take_along_axis(use, order, axis=1)
    sorted_weights = np.take_along_axis(weights, order, axis=1)
    satisfied = np.cumsum(sorted_use, axis=1) - sorted_use
    remaining = sorted_weights[:, ::-1].cumsum(axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(remaining > 0, (capacity - satisfied) / remaining, np.inf)
    short = np.take_along_axis(ratio, order, axis=1) > level
    first = short.argmax(axis=1)
    rows = np.arange(len(use))
    return np.where(short.any(axis=1), level[rows, first], np.inf)
