"""What breaks on a server is used nowhere any more, and nobody else is blamed for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import LiveServer, ask, entry_of, given, live_tuner, report, split_gains
from tuner_support import (
    KEY,
    SCOPE,
    STEP,
    Clock,
    kinds,
    message,
    overview,
    record,
    trials,
)

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Outcome, SeenBucket
from tuner.core import Tuner
from tuner.messages import Noted


@pytest.fixture
def tuner(tmp_path: Path, clock: Clock) -> Iterator[Tuner]:
    made = live_tuner(tmp_path, clock)
    yield made
    made.close()


def test_wrong_answers_on_a_server_bar_their_config_everywhere(tuner: Tuner) -> None:
    near = [record(i, lengths=(STEP[0], [500 + i] * 5)) for i in range(50)]
    tuner.ingest(message(1, records=near))
    other = "p128@512+d4@512"
    LiveServer(tuner, split_gains).work()
    entry = entry_of(tuner)
    assert entry is not None
    seen = [SeenBucket(bucket=other, steps=10, attention_us=1e9)]
    while PodConfig.from_dict((bad := given(tuner, buckets=seen)).candidate) != entry.config:
        LiveServer(tuner, split_gains).run(bad)
    told = report(bad, [], outcome="mismatch", reason="lse differs by 3")
    assert tuner.report_experiment(told) == Noted(True, True)
    assert entry_of(tuner) is None and "rollback" in kinds(tuner)
    assert overview(tuner)["totals"]["alerts"] >= 2
    assert entry.config in tuner.search.board.holds.barred(SCOPE)
    LiveServer(tuner, split_gains, seed=5).work()
    new = entry_of(tuner)
    assert new is None or new.config != entry.config
    assert all(
        t["reason"] for t in trials(tuner, KEY)["trials"]
        if PodConfig.from_dict(t["config"]) == entry.config
    )  # fmt: skip


def test_a_barred_config_stays_barred_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = live_tuner(tmp_path, clock, database_url=url)
    LiveServer(first, split_gains).work()
    entry = entry_of(first)
    assert entry is not None
    # Death between the bar and the roll back.
    first.search.board.holds.bar(SCOPE, entry.config, "mismatch", clock.now)
    first.close()
    second = live_tuner(tmp_path, clock, database_url=url)
    assert entry_of(second) is None
    second.close()


def test_a_default_that_fails_is_not_barred(tuner: Tuner) -> None:
    told = report(given(tuner), [], outcome="failed", reason="no memory")
    assert tuner.report_experiment(told).taken
    assert not tuner.search.board.holds.barred(SCOPE)


@pytest.mark.parametrize("outcome", ["measured", "failed", "infeasible"])
def test_a_recheck_that_could_not_be_run_takes_nothing_out_of_force(
    tuner: Tuner, outcome: Outcome
) -> None:
    server = LiveServer(tuner, split_gains)
    while not (recheck := given(tuner)).guards:
        server.run(recheck)
    entry = entry_of(tuner)
    assert entry is not None
    reason = "" if outcome == "measured" else "no compiler here"
    told = report(recheck, [], outcome=outcome, reason=reason)
    assert tuner.report_experiment(told).taken
    assert entry_of(tuner) == entry
    assert not tuner.search.board.holds.barred(SCOPE)


def test_infeasible_on_a_server_is_pruned_in_its_bucket_only(tuner: Tuner) -> None:
    server = LiveServer(tuner, split_gains)
    server.run(given(tuner))
    experiment = given(tuner)
    told = report(experiment, [], outcome="infeasible", reason="no compiler")
    assert tuner.report_experiment(told).taken
    assert not tuner.search.board.holds.barred(SCOPE)
    assert trials(tuner, KEY)["trials"][experiment.number]["state"] == "pruned"


def test_two_servers_that_fall_silent_with_a_config_bar_it(tuner: Tuner, clock: Clock) -> None:
    LiveServer(tuner, split_gains).run(given(tuner))
    suspect = given(tuner)
    for server in ("live-2", "live-3"):
        clock.now += suspect.seconds + 1
        held = given(tuner, server)
        assert held.candidate == suspect.candidate or server == "live-3"
    clock.now += suspect.seconds + 1
    tuner.housekeeping()
    assert PodConfig.from_dict(suspect.candidate) in tuner.search.board.holds.barred(SCOPE)


def test_a_server_that_lives_and_lets_an_experiment_lie_blames_nobody(
    tuner: Tuner, clock: Clock
) -> None:
    LiveServer(tuner, split_gains).run(given(tuner))
    suspect = given(tuner)
    clock.now += suspect.seconds - 1
    assert tuner.next_experiment(ask()) is None
    clock.now += 2
    # Not this bucket again for a while; others get it.
    assert tuner.next_experiment(ask()) is None
    assert given(tuner, "live-2").number == suspect.number
    assert not tuner.search.board.experiments._silent
