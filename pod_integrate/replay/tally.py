"""Which buckets of hybrid batches a run of steps has, and what of attention's time each is."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from pod_integrate.model.estimate import attention_us
from pod_integrate.replay.serving import Step
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

# Buckets that are told apart; a log has some hundreds.
_MOST_BUCKETS = 20_000


class Row(NamedTuple):
    """One bucket: steps, attention time of one layer, query tokens."""

    bucket: str
    steps: int
    us: float
    tokens: int


@dataclasses.dataclass
class Tally:
    """Steps by bucket, in a bounded amount of memory.

    device  whose rates weigh the steps that were not timed, by the cost model
    beyond  steps of buckets that came when there were too many
    """

    geometry: Geometry
    device: DeviceKey
    steps: int = 0
    hybrid: int = 0
    beyond: int = 0
    _rows: dict[Bucket, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, step: Step) -> float:
        """Count a step; microseconds of one layer's attention."""
        bucket = Bucket.of(step.q_lens, step.kv_lens)
        self.steps += 1
        self.hybrid += bucket.is_hybrid
        us = self._us(step)
        row = self._rows.get(bucket)
        if row is None:
            if len(self._rows) >= _MOST_BUCKETS:
                self.beyond += 1
                return us
            row = self._rows[bucket] = [0, 0.0, 0]
        row[0] += 1
        row[1] += us
        row[2] += sum(step.q_lens)
        return us

    def _us(self, step: Step) -> float:
        if step.attention_us > 0:
            return step.attention_us / max(1, step.layers)
        return attention_us(step.q_lens, step.kv_lens, self.geometry, self.device)

    def rows(self) -> list[Row]:
        """All buckets, those with most time first."""
        rows = [Row(str(b), int(n), us, int(t)) for b, (n, us, t) in self._rows.items()]
        return sorted(rows, key=lambda row: (-row.us, row.bucket))

    def document(self) -> dict[str, Any]:
        """All of it as JSON."""
        rows = self.rows()
        total = sum(row.us for row in rows) or 1.0
        return {
            "geometry": str(self.geometry),
            "device": str(self.device),
            "steps": self.steps,
            "hybrid_steps": self.hybrid,
            "attention_ms_per_layer": round(total / 1e3, 3) if self.steps else 0.0,
            "buckets": [row._asdict() | {"time_share": row.us / total} for row in rows],
        }
