"""Which experiments keep to the budget, and which must not wait for it."""

from __future__ import annotations

import pytest
from support.live_server import OTHER, Server

from pod_integrate.terms.config import PodConfig
from tuner.phases import Recheck


def test_a_check_of_what_is_in_force_waits_for_no_budget() -> None:
    server = Server(share=0.02, phase=str(Recheck(0)), steps=20, seconds=regressed)
    ran = [server.step() for _ in range(40)]
    # All but the cold ones at the start and the one whose layer is in shadow.
    assert sum(len(set(configs)) > 1 for configs in ran) >= 20
    server.group.close_step()
    server.group.clock.harvest()
    assert len(server.live.pairs) == 20
    assert all(pair.speedup == pytest.approx(1 / 1.5) for pair in server.live.pairs)


def test_other_experiments_keep_to_their_share() -> None:
    server = Server(share=0.02, steps=20)
    for _ in range(400):
        server.step()
    assert server.live.begun <= 0.02 * 400


def regressed(config: PodConfig) -> float:
    """Seconds of a layer, were the candidate half as slow again as the baseline."""
    return 1.5e-3 if config == OTHER else 1e-3
