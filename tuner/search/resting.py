"""How long a bucket's search rests: less where traffic moves to it.

What a search may still gain is a share of the bucket's time, so a bucket that takes four times as
much of the traffic as when its search ended is worth another look after a quarter of the time.
There is no threshold, and so no false alarm to calibrate: shares that waver about a mean move the
next look by as much as they waver, and a bucket that grows is opened LEAST times as often at most.
"""

from __future__ import annotations

from collections.abc import Callable

# Of the usual time a bucket rests at least this part, however much it has grown.
LEAST = 1 / 16


class Rest:
    """A search's rest, over after `seconds` at most.

    share  what part of all attention time the bucket takes at a time

    since  when it began, None while the search goes on
    """

    def __init__(self, seconds: float, share: Callable[[float], float]) -> None:
        self._seconds, self._share = seconds, share
        self.since: float | None = None
        self._was = 0.0

    def begin(self, now: float) -> None:
        """The search has ended for now."""
        self.since, self._was = now, self._share(now)

    def end(self) -> None:
        """The search goes on."""
        self.since = None

    def over(self, now: float) -> bool:
        """Whether the search, if it rests, has done so for long enough."""
        if self.since is None:
            return True
        rested = (now - self.since) / self._seconds
        if not LEAST <= rested < 1:
            return rested >= 1
        return rested * self._share(now) >= self._was
