"""What a server asks a tuner for, and what it tells of experiments."""

from __future__ import annotations

import dataclasses

import pytest
from support.laboratory import CPU, DEFAULT, LAYERS, OTHER, Host, make_batch, offer
from support.layers import run_layers

from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.errors import BuildError, MismatchError
from pod_integrate.live import experiments, lately, readiness
from pod_integrate.live.experimenter import MISSED
from pod_integrate.live.experiments import NO_ROOM_STEPS, Seen
from pod_integrate.terms.config import TileConfig
from pod_integrate.terms.keys import Bucket

OTHER_TILES = dataclasses.replace(DEFAULT, decode=TileConfig(q_rows=16, kv_rows=96))


def test_nothing_is_asked_before_a_live_step_was_seen() -> None:
    host = Host()
    host.group.plan(make_batch(), live=False)
    host.rounds()
    assert host.tuner.asks == []
    host.steps(3)
    host.rounds()
    (ask,) = host.tuner.asks
    (seen,) = ask.buckets
    assert (seen.bucket, seen.steps, seen.captured) == (str(make_batch().bucket), 3, False)
    assert (ask.server, ask.device, ask.variants_only) == ("s1", str(CPU.key), False)


def test_an_experiment_is_prepared_run_and_reported_and_the_bucket_is_free_again() -> None:
    host = Host()
    host.tuner.offers = [offer(steps=4)]
    host.steps(3)
    host.rounds()
    assert not host.group.readiness.wanted()
    host.steps(60)
    host.rounds()
    (report,) = host.tuner.reports
    assert (report.id, report.outcome, report.done) == ("e1", "measured", True)
    assert len(report.pairs) == 4 and report.layers == LAYERS
    assert host.group.experiments is not None and not host.group.experiments.running
    # While it ran the bucket was not offered.
    assert len(host.tuner.asks) == 2


def test_a_long_experiment_is_reported_in_parts() -> None:
    host = Host()
    host.tuner.offers = [offer(steps=40)]
    host.steps(3)
    host.rounds()
    while not host.tuner.reports or not host.tuner.reports[-1].done:
        host.steps(20)
        host.rounds()
    parts = [len(report.pairs) for report in host.tuner.reports]
    assert len(parts) > 2 and sum(parts) == 40 and min(parts[:-1]) >= experiments.REPORT_PAIRS
    host.tuner.offers = [offer("e2", steps=40)]
    host.rounds()
    while len(host.group.experiments.running[make_batch().bucket].pairs) < 2:  # type: ignore[union-attr]
        host.steps(1)
    host.now += 31.0
    host.rounds()
    assert (host.tuner.reports[-1].id, host.tuner.reports[-1].done) == ("e2", False)


@pytest.mark.parametrize("decided", [False, True])
def test_a_tuner_that_wants_no_more_ends_an_experiment(decided: bool) -> None:
    host = Host()
    host.tuner.offers = [offer(steps=100)]
    host.steps(3)
    host.rounds()
    host.tuner.taken, host.tuner.done = decided, decided
    host.steps(60)
    host.rounds()
    assert host.group.experiments is not None and not host.group.experiments.running
    assert len(host.tuner.reports) == 1


def test_what_is_worth_a_report_wakes_the_thread_that_sends_it() -> None:
    woken: list[int] = []
    host = Host()
    host.group.readiness.wake = lambda: woken.append(len(host.tuner.reports))
    host.tuner.offers = [offer(steps=100), offer("e2")]
    host.steps(3)
    host.rounds()
    assert not woken
    while not woken:
        host.steps(1)
    host.rounds()
    assert len(host.tuner.reports[0].pairs) == experiments.REPORT_PAIRS


def test_an_experiment_without_a_step_in_its_lease_is_given_back() -> None:
    host = Host()
    host.tuner.offers = [offer()]
    host.steps(3)
    host.rounds()
    host.now += 61.0
    host.rounds()
    (report,) = host.tuner.reports
    assert (report.outcome, report.pairs, report.done) == ("measured", [], True)
    assert host.group.experiments is not None and not host.group.experiments.running


@pytest.mark.parametrize("error", [MismatchError("far off"), BuildError("no nvcc")])
def test_what_cannot_be_prepared_is_told_at_once_and_never_runs(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(readiness, "verify", refuse)
    host = Host()
    host.tuner.offers = [offer(), offer("e2")]
    host.steps(3)
    host.rounds(2)
    told = [(r.id, r.outcome) for r in host.tuner.reports]
    if isinstance(error, MismatchError):
        # Whoever asks for it later hears the same: the tuner may have lost the first report.
        assert told == [("e1", "mismatch"), ("e2", "mismatch")]
        assert host.failures.counts["experiment_mismatch"] == 2
    else:
        assert told == [("e1", "failed"), ("e2", "failed")]
    assert str(error) in host.tuner.reports[0].reason
    assert host.group.experiments is not None and not host.group.experiments.running


def test_an_infeasible_candidate_and_an_unseen_bucket_are_told() -> None:
    host = Host()
    wide = dataclasses.replace(DEFAULT, prefill=TileConfig(q_rows=4096, kv_rows=64))
    host.tuner.offers = [offer("wide", wide), offer("unseen", bucket="d8@128")]
    host.steps(3)
    host.rounds(2)
    assert [(r.id, r.outcome) for r in host.tuner.reports] == [
        ("wide", "infeasible"),
        ("unseen", "measured"),
    ]
    assert host.tuner.reports[1].pairs == []


def test_a_captured_bucket_is_offered_with_its_tiles_and_takes_no_others() -> None:
    host = Host()
    lengths = [1] * 8, [64] * 8
    tiles, other = (tiles_name(config) for config in (DEFAULT, OTHER_TILES))
    assert tiles != other and host.group.experiments is not None
    bucket = Bucket.of(*lengths)
    host.group.experiments.see(bucket, lengths, tiles)
    host.tuner.offers = [offer("e1", OTHER_TILES, bucket=str(bucket))]
    host.steps(3)
    host.rounds()
    seen = {found.bucket: found for found in host.tuner.asks[0].buckets}
    assert (seen[str(bucket)].captured, seen[str(bucket)].tiles) == (True, tiles)
    eager = seen[str(make_batch().bucket)]
    assert (eager.captured, eager.tiles) == (False, "")
    (report,) = host.tuner.reports
    assert report.outcome == "infeasible" and tiles in report.reason
    assert not host.group.experiments.running


def test_a_candidate_that_no_captured_grid_holds_is_told_as_infeasible() -> None:
    host = Host()
    host.tuner.offers = [offer()]
    host.steps(3)
    host.rounds()
    (live,) = host.group.experiments.running.values()  # type: ignore[union-attr]
    for _ in range(NO_ROOM_STEPS):
        live.lack_room()
    host.rounds()
    (report,) = host.tuner.reports
    assert (report.outcome, report.done, report.pairs) == ("infeasible", True, [])
    assert "no room for decode_split_tokens 64" in report.reason
    assert host.failures.counts[MISSED] == 1


def test_buckets_of_a_tuner_that_is_away_are_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lately, "MOST_SEEN", 3)
    found = lately.Lately()
    found.add({Bucket.of([1] * n, [64] * n): Seen(n, ([], [])) for n in (1, 2, 4, 8, 16)}, 0.0)
    found.add({Bucket.of([1] * 8, [64] * 8): Seen(100, ([], []))}, lately.HALF_LIFE_SECONDS / 2)
    steps = {offered.bucket: offered.steps for offered in found.offers(busy={"d16@64"})}
    assert steps == {"d8@64": 108, "d4@64": 4}
    assert found.get(Bucket.of([1], [64])) is None
    found.add({}, lately.HALF_LIFE_SECONDS)
    assert {seen.bucket: seen.steps for seen in found.offers(busy=())}["d8@64"] == 54


def test_steps_remember_a_bounded_number_of_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "MOST_SEEN", 2)
    seen = Host().group.experiments
    assert seen is not None
    for n in (1, 2, 4, 1):
        seen.see(Bucket.of([1] * n, [64] * n), ([1], [64]))
    assert [(str(b), s.steps) for b, s in seen.take_seen().items()] == [("d1@64", 2), ("d2@64", 1)]


def test_answers_that_differ_in_shadow_end_it_as_a_mismatch_for_good() -> None:
    host = Host()
    host.tuner.offers = [offer(), offer("e2")]
    host.steps(3)
    host.rounds()
    for _ in range(40):
        host.clock.now += 0.01
        plan = host.group.plan(make_batch(), live=True)
        ran = run_layers(plan, LAYERS, answer=lambda a: 1.5 if a.config == OTHER else 1.0)
        # The candidate never answers: its one call is the shadow's.
        assert ran in ([DEFAULT] * LAYERS, [DEFAULT, OTHER, *[DEFAULT] * (LAYERS - 1)])
    host.group.close_step()
    host.rounds(2)
    assert [(r.id, r.outcome) for r in host.tuner.reports][0] == ("e1", "mismatch")
    assert "live hybrid step" in host.tuner.reports[0].reason
    assert host.tuner.reports[1].id == "e2" and host.tuner.reports[1].outcome == "mismatch"
    assert host.failures.counts["experiment_mismatch"] == 2
