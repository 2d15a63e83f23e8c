"""Whether the gain of a promoted config has fallen, step by step, for as long as it is in force.

Against "a step is below the floor with probability at most 1/2" one bets on "below" at every step;
what such bets are worth, summed over all steps at which they may have begun, is an e-detector:

    R_t = (1 + R_{t-1}) (1 + b)   for a step below the floor, else  (1 + R_{t-1}) (1 - b)

While the hypothesis holds, R_t - t is a supermartingale, so that R first reaches L after L steps or
more on average, whatever the noise looks like: the threshold is the number of steps between false
alarms. R here is the mean over several b. No detector of a library says that: ADWIN and
Page-Hinkley assume bounded values or a scale, and need to be calibrated for every bucket's noise.
Source: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change
detection, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# Steps between false alarms of one promoted config, at least, on average.
RUN_LENGTH = 100_000
# A fall from the confirmed gain by less is none: confirmations are of few steps.
TOLERANCE = 0.02
_BETS = (0.15, 0.3, 0.5, 0.7)


class Falling:
    """Watches the speed-ups of one config, one for each distinct step.

    confirmed  median speed-up when it was promoted
    """

    def __init__(self, confirmed: float) -> None:
        self.confirmed, self.floor = confirmed, confirmed * (1 - TOLERANCE)
        self._sums = [0.0] * len(_BETS)

    def add(self, speedups: Iterable[float]) -> bool:
        """Take steps in; whether the gain has fallen, and then the watch begins anew."""
        fallen = False
        for speedup in speedups:
            # An equal one is half of each.
            side = 1.0 if speedup < self.floor else -1.0 if speedup > self.floor else 0.0
            self._sums = [
                (1 + total) * (1 + side * bet) for total, bet in zip(self._sums, _BETS, strict=True)
            ]
            if math.fsum(self._sums) >= RUN_LENGTH * len(_BETS):
                fallen = True
                self._sums = [0.0] * len(_BETS)
        return fallen
