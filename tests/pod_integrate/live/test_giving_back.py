"""What went wrong beside a config is no verdict on it, and holds nobody up."""

from __future__ import annotations

import pytest
from support.laboratory import OTHER, Host, make_batch, offer
from support.layers import run_layers

from pod_integrate.live import readiness
from pod_integrate.live.verify import NoRoomError


@pytest.mark.parametrize("error", [NoRoomError("0.2 GiB free"), RuntimeError("a bug")])
def test_what_says_nothing_about_a_config_is_given_back_and_asking_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(readiness, "verify", refuse)
    host = Host()
    host.tuner.offers = [offer(), offer("e2")]
    host.steps(3)
    host.rounds(2)
    assert [(r.id, r.outcome, r.pairs) for r in host.tuner.reports] == [
        ("e1", "measured", []),
        ("e2", "measured", []),
    ]
    assert OTHER not in host.group.readiness.refused


def test_steps_of_one_layer_give_an_experiment_back() -> None:
    host = Host()
    host.tuner.offers = [offer()]
    host.steps(3)
    host.rounds()
    for _ in range(60):
        run_layers(host.group.plan(make_batch(), live=True), 1)
    host.group.close_step()
    host.group.clock.harvest()
    host.rounds()
    (report,) = host.tuner.reports
    assert (report.outcome, report.pairs, report.done) == ("measured", [], True)


def test_a_shadow_of_a_step_that_failed_keeps_no_other_config_waiting() -> None:
    host = Host()
    host.group.readiness.prepare(OTHER, make_batch().lengths)
    lengths = make_batch().lengths
    assert host.group.readiness.approach(OTHER, "hybrid", lengths) is not None
    # The step raises before a layer has run, so that nobody ever judges.
    assert not host.group.readiness.owed
    assert host.group.readiness.approach(OTHER, "hybrid", lengths) is not None
