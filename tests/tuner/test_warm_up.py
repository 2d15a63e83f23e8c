"""The first step of a process, seconds of loading and compiling, is no traffic."""

from __future__ import annotations

from tuner_support import STEP, message, overview, record

from tuner.core import Tuner

FIRST_US = 1_300_000.0


def test_first_step_of_an_older_server_has_no_share_of_time_and_no_place_in_charts(
    tuner: Tuner,
) -> None:
    alone = record(0, lengths=([40], [40]), attention_us=FIRST_US, step_us=2 * FIRST_US)
    beside = record(0, attention_us=FIRST_US)
    steps = [record(number, lengths=STEP) for number in range(1, 21)]
    for server, first in (("old-1", alone), ("old-2", beside)):
        tuner.ingest(message(server=server, records=[first, *steps]))
    rows = {row["bucket"]: row for row in overview(tuner)["buckets"]}
    assert rows["p32@32"]["time_share"] < 0.01
    assert rows["p32@32"]["attention_us_median"] is None
    assert rows["p128@256+d4@256"]["attention_us_median"] == 4000.0
    tuner.housekeeping()
    assert overview(tuner)["history"][-1]["attention_us_default"] == 4000.0


def test_first_step_keeps_its_lengths_and_is_counted(tuner: Tuner) -> None:
    assert tuner.ingest(message(records=[record(0, attention_us=FIRST_US)])).accepted == 1
    assert overview(tuner)["buckets"][0]["steps"] == 1
