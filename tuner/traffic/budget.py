"""How much attention time one server may add: no more than passes.

Traces say themselves how long a step took and how many steps they stand for, and a bucket's time is
the sum. One process cannot attend for longer than the wall does (one rank of a server records), so
each server has a second of attention for a second of time, and may save up BURST_SECONDS for what
it recorded while the tuner was away. What a message claims beyond is scaled down.
"""

from __future__ import annotations

from collections.abc import Sequence

BURST_SECONDS = 60.0
# No hybrid step is faster; without it a message without times would stand for any number of steps.
_LEAST_STEP_US = 100.0
_MAX_SERVERS = 10_000


class Budgets:
    """Attention time that each server still has; kept in memory."""

    def __init__(self) -> None:
        # Server: microseconds, and when it had them.
        self._left: dict[str, tuple[float, float]] = {}

    def scale(self, server: str, seen: int, times: Sequence[float], now: float) -> float:
        """Steps that each record of a message stands for: at most what its server has left.

        seen   steps that the message says it stands for
        times  attention us of its records
        """
        if not times:
            return 0.0
        scale = max(1.0, seen / len(times))
        claimed = scale * sum(max(us, _LEAST_STEP_US) for us in times)
        left = self._now(server, now)
        taken = min(claimed, left)
        self._left[server] = (left - taken, now)
        if len(self._left) > _MAX_SERVERS:
            self._forget(now)
        return scale * taken / claimed

    def _now(self, server: str, now: float) -> float:
        left, since = self._left.get(server, (BURST_SECONDS * 1e6, now))
        return min(BURST_SECONDS * 1e6, left + max(0.0, now - since) * 1e6)

    def _forget(self, now: float) -> None:
        """Servers that have all of it again are as good as new ones."""
        full = [name for name in self._left if self._now(name, now) >= BURST_SECONDS * 1e6]
        for name in full or list(self._left)[:1]:
            del self._left[name]
