"""Experiments beside a tuner that is away, old or broken, and at the end of a process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.laboratory import CPU, OTHER, FakeTuner, Host, make_batch, offer

from pod_integrate.devices.cpu.device import CpuDevice
from pod_integrate.errors import BuildError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry


def fail_with(status: int | None, body: bytes | None) -> Callable[[FakeTuner], None]:
    def spoil(tuner: FakeTuner) -> None:
        tuner.status, tuner.body = status, body

    return spoil


@pytest.mark.parametrize(
    ("spoil", "event"),
    [
        (fail_with(500, None), "experiment_http_500"),
        (fail_with(None, b"{}"), "experiment_rejected"),
        (fail_with(None, b"\0" * (2 << 20)), "experiment_rejected"),
        (fail_with(404, None), None),
    ],
)
def test_a_bad_tuner_is_a_count_and_an_older_one_is_not(
    spoil: Callable[[FakeTuner], None], event: str | None
) -> None:
    host = Host()
    spoil(host.tuner)
    host.steps(3)
    host.rounds(3)
    assert dict(host.failures.counts) == ({} if event is None else {event: 3})


def test_pairs_survive_a_tuner_that_is_away() -> None:
    host = Host()
    host.tuner.offers = [offer(steps=4)]
    host.steps(3)
    host.rounds()
    host.tuner.status = 503
    host.steps(60)
    host.rounds(3)
    assert host.tuner.reports == [] and host.failures.counts["experiment_report_http_503"] == 3
    host.tuner.status = None
    host.rounds()
    assert [len(r.pairs) for r in host.tuner.reports] == [4]


def test_the_end_of_the_process_reports_what_was_measured() -> None:
    host = Host()
    host.tuner.offers = [offer(steps=100)]
    host.steps(3)
    host.rounds()
    host.steps(10)
    host.experimenter.close()
    (report,) = host.tuner.reports
    assert report.done and report.outcome == "measured" and 1 <= len(report.pairs) <= 10


def test_a_config_that_fails_to_build_is_tried_again_and_the_default_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoCompiler(CpuDevice):
        def build(self, geometry: Geometry, config: PodConfig) -> None:
            raise BuildError("no compiler")

    host = Host(NoCompiler(CPU.level))
    found = host.group.readiness
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(3):
        assert found.approach(OTHER, "hybrid", make_batch().lengths) is None
        host.rounds()
    assert host.failures.counts["config_not_prepared"] == 1
    now = 61.0
    found.approach(OTHER, "hybrid", make_batch().lengths)
    host.rounds()
    assert host.failures.counts["config_not_prepared"] == 2
    assert found.usable(OTHER, "hybrid") is None and OTHER not in found.refused
