"""One server adds at most the time that passes, whatever it claims."""

from __future__ import annotations

import pytest
from tuner_support import Clock, message, overview, record

from tuner.core import Tuner
from tuner.traffic import budget
from tuner.traffic.budget import BURST_SECONDS, Budgets

LIES = [
    {"attention_us": 1e10, "seen": 8},
    {"attention_us": 4000.0, "seen": 1 << 32},
    {"attention_us": 0.0, "seen": 1 << 32},
    {"attention_us": 0.0, "seen": 8, "kv_len": 1 << 24},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_weighs_no_more_than_one_that_only_attends(
    tuner: Tuner, clock: Clock, lie: dict[str, float]
) -> None:
    seen, us = int(lie["seen"]), lie["attention_us"]
    minutes = 3
    for i in range(12 * minutes):
        clock.now += 5.0
        # Half of its time attention: 2.5 s in 5.
        honest = [record(i, attention_us=250_000.0)] * 10
        tuner.ingest(message(i, honest, server="honest"))
        lying = [
            record(i, lengths=([1], [int(lie.get("kv_len", 64))]), attention_us=us, step_us=us)
        ] * 8
        tuner.ingest(message(i, lying, server="lying", seen=seen))
    rows = {row["bucket"]: row for row in overview(tuner)["buckets"]}
    told = 60.0 * minutes
    assert rows["p128@256+d4@256"]["steps"] == 10 * 12 * minutes
    assert rows["p128@256+d4@256"]["time_share"] >= 0.5 * told / (1.5 * told + BURST_SECONDS) * 0.99


def test_one_message_adds_no_more_than_a_server_may_save_up(tuner: Tuner, clock: Clock) -> None:
    clock.now += 86400
    for sequence in range(3):
        tuner.ingest(message(sequence, [record(attention_us=1e10)] * 100, seen=1 << 30))
    (load,) = tuner.traffic.heaviest(clock.now)
    assert load.attention_us == pytest.approx(BURST_SECONDS * 1e6)


def test_honest_sampled_traffic_counts_whole(tuner: Tuner, clock: Clock) -> None:
    for i in range(50):
        clock.now += 5.0
        tuner.ingest(message(i, [record(i, attention_us=100_000.0)] * 10, seen=48))
    (row,) = overview(tuner)["buckets"]
    assert row["steps"] == 50 * 48


def test_the_list_of_servers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_MAX_SERVERS", 10)
    budgets = Budgets()
    for i in range(100):
        budgets.scale(f"s{i}", 8, [4000.0] * 8, now=float(i))
    assert len(budgets._left) <= 10
