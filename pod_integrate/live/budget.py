"""What live experiments may cost: a share of the steps, and of the time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

# Steps that may be saved up while no bucket of an experiment comes by.
_MOST_SAVED = 8.0
# Seconds that candidates may cost before any were earned, and at most after a quiet time.
_FIRST_SECONDS, _MOST_SECONDS = 0.1, 1.0
# The first steps after a pause run at other clocks, with cold caches.
_COLD_STEPS = 3
_PAUSE_SECONDS, _PAUSE_STEPS = 0.05, 4.0


class Budget:
    """Says which steps may be experiments; for one serving thread.

    share  of all steps, and of the time since the start that slow candidates may take from steps
    seed   of the draw
    now    seconds, for tests
    """

    def __init__(
        self, share: float, *, seed: int | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.share, self._now = share, now
        self._random = random.Random(seed)
        self._saved = 0.0
        self._seconds = _FIRST_SECONDS
        self._last: float | None = None
        self._usual = 0.0
        self._cold = _COLD_STEPS

    def count(self) -> None:
        """A live step begins."""
        self._saved = min(_MOST_SAVED, self._saved + self.share)
        now = self._now()
        gap = 0.0 if self._last is None else now - self._last
        self._last = now
        self._seconds = min(_MOST_SECONDS, self._seconds + self.share * gap)
        pause = _PAUSE_SECONDS + _PAUSE_STEPS * self._usual
        if gap > pause:
            self._cold = _COLD_STEPS
            # Where every step comes after a pause, they are what this server's steps are like.
            self._usual += 0.02 * (pause - self._usual)
        else:
            self._cold = max(0, self._cold - 1)
            self._usual += 0.1 * (gap - self._usual)

    def draw(self, *, guards: bool = False) -> bool:
        """Whether this step may be an experiment; counts it as one then.

        guards  it compares what is in force with the default: steps run one of the two anyway, so
                it costs no more than its timing, and a regression must not wait for a budget
        """
        if guards:
            return not self._cold
        if self._cold or self._saved < 1.0 or self._seconds <= 0.0:
            return False
        # Not every step that could be one: no load of a period of ours may hide from it.
        if self._random.random() < 0.5:
            return False
        self._saved -= 1.0
        return True

    def lose(self, seconds: float) -> None:
        """An experiment made its step longer by so much; less than 0 gives nothing back."""
        self._seconds -= max(0.0, seconds)
