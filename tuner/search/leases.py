"""Who holds which task, until when; and how often a task was lost."""

from __future__ import annotations

import dataclasses
import logging
from typing import NamedTuple

from tuner.messages import StudyKey, Task, WorkerInfo
from tuner.search.campaign import Assignment

logger = logging.getLogger(__name__)

# A task that this many workers took to their grave is the candidate's fault.
MAX_LOST = 3


@dataclasses.dataclass
class WorkerState:
    """What is known of a worker: when it was last heard of and what it holds."""

    info: WorkerInfo
    seen: float
    task: str | None = None
    since: float = 0.0


class Lease(NamedTuple):
    """A task in somebody's hands."""

    task: Task
    work: Assignment
    worker: str
    expires: float


class Leases:
    """Leases of one tuner. They live in memory only: a restart issues everything anew."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}
        self._lost: dict[tuple[StudyKey, int, str], int] = {}

    def grant(self, lease: Lease) -> None:
        """Note that a worker took a task."""
        self._held[lease.task.id] = lease

    def take_back(self, task_id: str) -> Lease | None:
        """End a lease; None when it is not held."""
        return self._held.pop(task_id, None)

    def busy(self, key: StudyKey) -> set[int]:
        """Trials of a study that somebody measures now."""
        return {lease.task.number for lease in self._held.values() if lease.task.key == key}

    def lost(self, key: StudyKey, number: int, phase: str) -> int:
        """How many workers lost this task so far."""
        return self._lost.get((key, number, phase), 0)

    def forget(self, key: StudyKey) -> None:
        """End all leases of a study."""
        self._held = {name: held for name, held in self._held.items() if held.task.key != key}

    def overdue(self, now: float) -> list[Lease]:
        """End and return the leases whose time is over."""
        return self._end([lease for lease in self._held.values() if lease.expires <= now])

    def of(self, worker: str) -> list[Lease]:
        """End and return the leases of a worker."""
        return self._end([lease for lease in self._held.values() if lease.worker == worker])

    def count_lost(self, lease: Lease) -> bool:
        """Count a task that brought nothing; True when it must not be tried again."""
        task = lease.task
        place = (task.key, task.number, task.phase)
        self._lost[place] = self._lost.get(place, 0) + 1
        logger.warning("worker %s lost task %s of %s", lease.worker, task.phase, task.key)
        if self._lost[place] < MAX_LOST:
            return False
        del self._lost[place]
        return True

    def _end(self, leases: list[Lease]) -> list[Lease]:
        for lease in leases:
            del self._held[lease.task.id]
        return leases
