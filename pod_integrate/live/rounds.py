"""When a thread that works in rounds takes its next one: later, the more of them have failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pod_integrate.live.failures import Failures

_LONGEST_PAUSE_SECONDS = 60.0


class Rounds:
    """Rounds of one thread; a round has failed when a failure was counted in it.

    pause  seconds between two of them; failed ones in a row double it, up to a minute or `pause`
    """

    def __init__(self, failures: Failures, pause: float) -> None:
        self._failures, self._pause = failures, pause
        self.failed_in_row = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around a round that raises nothing."""
        before = self._failures.total
        yield
        failed = self._failures.total > before
        self.failed_in_row = self.failed_in_row + 1 if failed else 0

    @property
    def pause_seconds(self) -> float:
        """Time until the next one."""
        longest = max(_LONGEST_PAUSE_SECONDS, self._pause)
        return min(self._pause * 2.0 ** min(self.failed_in_row, 16), longest)
