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


def test_a_bucket_that_takes_four_times_the_time_is_opened_after_a_quarter_of_it(
    tuner: Tuner, clock: Clock
) -> None:
    # The bucket, and another one beside which it is small.
    tuner.ingest(message())
    big = [record(i, lengths=([1] * 64, [60 + i] * 64), attention_us=200_000.0) for i in range(16)]
    tuner.ingest(message(1, big))
    drive(tuner, RecordedBench(nothing_matters))
    campaign, ended = tuner.search.campaigns[KEY], clock.now
    before = tuner.traffic.share(KEY, ended)
    clock.now = ended + tuner.settings.revisit_seconds / 3
    assert before < 0.2 and campaign.idle(clock.now)
    for n in range(2, 40):
        tuner.ingest(message(n))
    grown = tuner.traffic.share(KEY, clock.now) / before
    assert grown > 4 and not campaign.idle(clock.now)
    # However much it has grown it rests for a while.
    assert campaign.idle(ended + tuner.settings.revisit_seconds / 20)


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
