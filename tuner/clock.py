"""The tuner's time: it starts from the wall clock and goes on by one that nobody sets.

Leases, rechecks, the decay of weights and everything else that waits goes by it: a wall clock that
is put back a day or forward ten years changes nothing while the tuner runs. Times that are stored
are of this clock too; `settle` brings those of an earlier process into its past.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from tuner.store import schema


def _since_boot() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Returns Unix seconds that only ever grow, as fast as time passes.

    wall     Unix seconds, read once
    elapsed  seconds since some moment; never set back
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = _since_boot,
    ) -> None:
        self._elapsed = elapsed
        self._offset = wall() - elapsed()

    def __call__(self) -> float:
        """Now, in Unix seconds."""
        return self._offset + self._elapsed()


# What the tuner waits by; times of decisions and of history only say when something was.
_WAITED_BY = (
    schema.servers.c.last_seen,
    schema.messages.c.received,
    schema.bucket_stats.c.updated,
    schema.trials.c.created,
    schema.trials.c.updated,
)


def settle(tx: sa.Connection, now: float) -> None:
    """Turn stored times that lie in the future, of a wall clock that was wrong, into now."""
    for column in _WAITED_BY:
        tx.execute(sa.update(column.table).where(column > now).values({column: now}))
