"""Buckets at rest cost a look at memory, and memory holds those that are worked on."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from tuner_support import (
    KEY,
    WORKER,
    Clock,
    RecordedBench,
    drive,
    message,
    nothing_matters,
    record,
    trials,
)

from tuner.core import Tuner
from tuner.messages import StudyKey
from tuner.traffic.samples import Sample


def test_a_bucket_at_rest_is_not_looked_at_until_it_is_opened_again(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    asked: list[StudyKey] = []
    read = tuner.traffic.pool

    def pool(tx: sa.Connection, key: StudyKey, now: float) -> list[Sample]:
        asked.append(key)
        return read(tx, key, now)

    monkeypatch.setattr(tuner.traffic, "pool", pool)
    assert tuner.next_task(WORKER) is None and asked == []
    clock.now += tuner.settings.revisit_seconds
    tuner.ingest(message(1))
    assert tuner.next_task(WORKER) is not None and asked == [KEY]


def test_campaigns_that_were_not_used_for_longest_are_read_again(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.search.board.MAX_CAMPAIGNS", 2)
    for n in range(4):
        lengths = [([1] * (1 << n), [60 + i] * (1 << n)) for i in range(16)]
        steps = [record(i, lengths=both) for i, both in enumerate(lengths)]
        tuner.ingest(message(n, steps))
    drive(tuner, RecordedBench(nothing_matters))
    assert len(tuner.search.campaigns) == 2
    measured = {load.key: trials(tuner, load.key)["trials"] for load in tuner.traffic.heaviest(0.0)}
    assert len(measured) == 4 and all(len(found) >= 12 for found in measured.values())
