"""Studies of GPUs: what is proposed before any GPU was seen, from limits and variants alone."""

from __future__ import annotations

from pod_integrate.devices.registry import target_of
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.search import space
from tuner.search.study import Proposal, Study

H100 = DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132)
L40S = DeviceKey("nvidia-l40s", "sm89", 142)
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
BUCKET = Bucket.parse("p512@4k+d32@4k")


def make_study(device: DeviceKey) -> Study:
    return Study(GEOMETRY, device, bucket=BUCKET, trials=[], neighbours=[], seed=0)


def queued(study: Study) -> list[Proposal]:
    """Everything that is proposed before the sampler's first turn."""
    found = []
    while (proposal := study.propose()) is not None and proposal.origin != "sampler":
        found.append(proposal)
    return found


def test_first_guesses_fit_the_gpu_and_lie_in_the_space() -> None:
    for device in (H100, L40S):
        guesses = queued(make_study(device))
        origins = [guess.origin for guess in guesses]
        assert origins[0] == "default" and {"paper 1:1", "serial", "streams"} <= set(origins)
        assert "other tiles" in origins
        for config, _, infeasible in guesses:
            assert infeasible == ""
            target_of(device).require_feasible(config, GEOMETRY)
            choices = target_of(device).choices(GEOMETRY)
            assert space.decode(space.encode(config, choices), config) == config


def test_sampler_proposes_feasible_configs_and_says_why_others_are_not() -> None:
    study = make_study(H100)
    queued(study)
    proposals = [study.propose() for _ in range(40)]
    told = [proposal for proposal in proposals if proposal is not None]
    # A tuner that mostly proposes what cannot run would never get to measure.
    assert sum(not proposal.infeasible for proposal in told) >= len(told) // 3
    for proposal in told:
        if proposal.infeasible:
            assert any(word in proposal.infeasible for word in ("Lower", "Set", "change"))
