"""Configs that are the same thing on a bucket's steps are one candidate, to the sampler as well."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
from tuner_support import KEY, make_tuner

from pod_integrate.devices.cuda.choices import (
    PAIRS,
    PAIRS_BELOW_128,
    PAIRS_IN_TURN,
    TILES,
    tiles_name,
    tiles_of,
)
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.messages import Pair
from tuner.phases import Duel
from tuner.search import space
from tuner.search.axes import Axes
from tuner.search.space import ANY
from tuner.search.state import State
from tuner.search.study import Study
from tuner.store.rows import insert_trial

GPU = DeviceKey("nvidia-h100", "sm90", 132)
CPU = DeviceKey("test-cpu", "avx512", 2)
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
HYBRID, DECODES, PREFILL = map(Bucket.parse, ("p512@4k+d32@4k", "d64@8k", "p2k@16k"))


@pytest.mark.parametrize("bucket", [HYBRID, DECODES, PREFILL], ids=str)
@pytest.mark.parametrize("device", [GPU, CPU], ids=str)
def test_places_are_the_same_exactly_when_plain_configs_are(
    bucket: Bucket, device: DeviceKey
) -> None:
    target = target_of(device)
    default = target.default_config(GEOMETRY)
    known = space.distributions(target.choices(GEOMETRY))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask(known).params for _ in range(1500)]
    # Close to each other, so that some are the same.
    drawn = [{**drawn[0], **dict(list(each.items())[-3:])} for each in drawn]
    choices = target.choices(GEOMETRY)
    rules = space.rules(bucket.sides, default, choices)
    places = list(map(tuple, Axes(known, rules).places(drawn).tolist()))
    plain = [space.plain(space.decode(each, default), rules, choices) for each in drawn]
    together = set(zip(places, plain, strict=True))
    assert 1 < len(together) == len(set(places)) == len(set(plain)) < len(drawn)
    assert default == space.plain(default, rules, choices)


def test_pairs_that_run_both_ops_at_once_have_no_ratio_on_a_gpu() -> None:
    target = target_of(GPU)
    assert target.choices(GEOMETRY).ratioless == {*PAIRS, *PAIRS_BELOW_128, *PAIRS_IN_TURN}
    # Where they run one op at a time they have one.
    wide = dataclasses.replace(GEOMETRY, head_dim=256)
    assert target.choices(wide).ratioless == {*PAIRS, *PAIRS_BELOW_128}
    for geometry in (GEOMETRY, wide):
        assert not target.choices(dataclasses.replace(geometry, kv_dtype="e4m3")).ratioless


def test_tiles_of_8_rows_are_not_drawn_where_the_batch_chooses_them_or_none_has_them() -> None:
    of_8 = {name for name in TILES if tiles_of(name).decode.q_rows == 8}
    for geometry in (GEOMETRY, dataclasses.replace(GEOMETRY, kv_dtype="e4m3")):
        assert target_of(GPU).choices(geometry).covered == of_8


def test_tiles_whose_ctas_run_both_ops_are_tried_with_one_ratio() -> None:
    target = target_of(GPU)
    whole = target.choices(GEOMETRY)
    tiles = tiles_name(target.default_config(GEOMETRY))
    made_up = whole._replace(ratioless=frozenset({tiles}))
    study = Study(
        GEOMETRY, GPU, bucket=HYBRID, trials=[], neighbours=[], seed=0, choices=made_up
    )  # fmt: skip
    asked = []
    for number in range(60):
        proposal = study.propose()
        assert proposal is not None
        asked.append(proposal.config)
        study.tell(proposal.config, 0.01 * (number % 7) - 0.03)
    ratios = [
        {(c.prefill_ctas, c.decode_ctas) for c in asked if (tiles_name(c) == tiles) == mine}
        for mine in (True, False)
    ]
    assert ratios[0] == {(0, 0)} and len(ratios[1]) > 2


def test_a_bucket_of_decodes_is_not_asked_for_ratios_and_waves() -> None:
    study = Study(GEOMETRY, GPU, bucket=DECODES, trials=[], neighbours=[], seed=0)
    asked = []
    for number in range(60):
        proposal = study.propose()
        assert proposal is not None
        asked.append(proposal.config)
        study.tell(proposal.config, 0.01 * (number % 7))
    assert {c.prefill_ctas for c in asked} == {study.default.prefill_ctas}
    assert {c.max_prefill_waves for c in asked} == {study.default.max_prefill_waves}
    # The paper's 1:1 is the default there, and what was drawn twice is one candidate.
    assert len(set(asked)) == 60


@pytest.mark.parametrize("confirmed", [1.28, 1.05])
def test_the_next_candidate_has_to_beat_what_was_confirmed_not_what_screening_said(
    tmp_path: Path, confirmed: float
) -> None:
    tuner = make_tuner(tmp_path)
    geometry, device, bucket = KEY.parsed()
    study = Study(geometry, device, bucket=bucket, trials=[], neighbours=[], seed=0)
    state = State(
        KEY, study, [], None, tuner.settings, 0.0, neighbours=list, share=lambda _now: 1.0
    )
    with tuner.store.begin() as tx:
        for value in (-0.25, -0.2):
            proposal = study.propose()
            assert proposal is not None
            trial = insert_trial(tx, KEY, proposal.config, origin="sampler", now=0.0)
            trial.state, trial.value = "complete", value
            state.trials[trial.number] = trial
        assert state.look(tx, ANY, final=True)
        first, second = state.trials.values()
        assert first.confirmation == 1 and not second.confirmation
        first.pairs[Duel(1)] = [Pair(1000.0 * confirmed, 1000.0, f"step {i}") for i in range(8)]
        state.promote(tx, first, 1.0)
        # Screened at 1.28 and 1.22.
        assert state.look(tx, ANY, final=True) == (confirmed < 1.2)
    tuner.close()
