"""A study's first guesses: what they build on, what a restart and a lesson leave of them."""

from __future__ import annotations

import dataclasses

from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.search.study import Proposal, Study
from tuner.store.rows import Trial

H200 = DeviceKey("nvidia-h200", "sm90", 132)
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
DEFAULT = target_of(H200).default_config(GEOMETRY)
HYBRID = "p2k@8k+d32@8k"
FINER = dataclasses.replace(DEFAULT, decode_split_tokens=1024)


def study(trials: list[Trial] | None = None) -> Study:
    bucket = Bucket.parse(HYBRID)
    return Study(GEOMETRY, H200, trials=trials or [], neighbours=[], seed=0, bucket=bucket)


def asked(found: Study) -> Proposal:
    proposal = found.propose()
    assert proposal is not None
    return proposal


def filed(made: list[tuple[Proposal, float]]) -> list[Trial]:
    """As they are in the database."""
    return [
        Trial(
            id=number, number=number, state="complete", config=proposal.config,
            origin=proposal.origin, value=value, created=0.0, updated=0.0,
        )
        for number, (proposal, value) in enumerate(made)
    ]  # fmt: skip


def searched(trials: int) -> list[tuple[Proposal, float]]:
    """Each one a little faster than the one before, so that later guesses build on others."""
    found, made = study(), []
    for number in range(trials):
        proposal = asked(found)
        made.append((proposal, -0.01 * number))
        found.tell(proposal.config, -0.01 * number)
    return made


def test_a_restart_makes_no_guess_again_and_leaves_none_out() -> None:
    whole = searched(24)
    guesses = [proposal.origin for proposal, _ in whole if proposal.origin != "sampler"]
    assert "sampler" in [proposal.origin for proposal, _ in whole]
    for count in range(1, 1 + len(guesses)):
        again = study(filed(whole[:count]))
        later = []
        while (proposal := asked(again)).origin != "sampler":
            later.append(proposal.origin)
            again.tell(proposal.config, 0.0)
        assert sorted(guesses[:count] + later) == sorted(guesses)
        assert again.expects is not None or count < 10


def test_a_config_that_is_slow_now_is_built_on_no_more() -> None:
    found = study()
    assert [asked(found).config for _ in range(3)][2] == FINER
    found.tell(FINER, -0.3)
    assert _splits(found) == {1024}
    found.revisit([], again=[FINER])
    assert asked(found).config == FINER
    found.tell(FINER, 0.1)
    assert _splits(found) == {DEFAULT.decode_split_tokens}


def test_one_that_cannot_be_measured_any_more_is_not_built_on_either() -> None:
    found = study()
    assert [asked(found).config for _ in range(3)][2] == FINER
    found.tell(FINER, -0.3)
    found.tell(FINER, None)
    assert _splits(found) == {DEFAULT.decode_split_tokens}


def _splits(found: Study) -> set[int]:
    configs: list[PodConfig] = [asked(found).config for _ in range(2)]
    return {config.decode_split_tokens for config in configs}
