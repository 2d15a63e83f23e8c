"""Where only some tiles can run, as in a captured graph, nothing else is proposed or measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_support import LiveServer, ask, live_tuner
from tuner_support import message, record

from pod_integrate.devices.cuda.batch_tiles import few_config
from pod_integrate.devices.cuda.choices import TILES, tiles_name, tiles_of
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import SeenBucket
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.search import space
from tuner.search.space import ANY, Within
from tuner.search.study import Study

GPU = DeviceKey("nvidia-h100", "sm90", 132)
BF16 = Geometry.parse("q32kv8d128-bf16-kvbf16-s16-w-1-c0")
DEFAULT_TILES = tiles_name(target_of(GPU).default_config(BF16))
BUCKET = "p128@256+d4@256"


def test_a_study_proposes_within_tiles_from_first_guesses_to_the_sampler() -> None:
    study = Study(BF16, GPU, bucket=Bucket.parse(BUCKET), trials=[], neighbours=[], seed=1)
    within = Within(frozenset({DEFAULT_TILES}))
    origins = set()
    for i in range(40):
        proposal = study.propose(within)
        assert proposal is not None and tiles_name(proposal.config) == DEFAULT_TILES
        study.tell(proposal.config, 0.01 * (i % 5))
        origins.add(proposal.origin)
    assert {"default", "sampler"} <= origins
    # What was left out is still to be tried by others.
    other = study.propose()
    assert other is not None and tiles_name(other.config) != DEFAULT_TILES


@pytest.mark.parametrize("bucket", [BUCKET, "d64@8k"])
def test_tiles_that_batches_run_by_themselves_cost_no_trial(bucket: str) -> None:
    choices = target_of(GPU).choices(BF16)
    covered, among = choices.covered, Within(frozenset(TILES))
    study = Study(BF16, GPU, bucket=Bucket.parse(bucket), trials=[], neighbours=[], seed=1)
    asked = []
    for number in range(100):
        proposal = study.propose(among if number % 4 == 0 else ANY)
        assert proposal is not None
        asked.append(tiles_name(proposal.config))
        study.tell(proposal.config, 0.01 * (number % 5))
    assert set(asked) & covered == set() and len(set(asked)) > 10
    # What was captured with such tiles has no others.
    own = next(iter(covered))
    proposal = study.propose(Within(frozenset({own})))
    assert proposal is not None and tiles_name(proposal.config) == own


def test_what_covers_tiles_of_8_rows_is_tried_and_trials_of_these_are_read() -> None:
    h200 = DeviceKey("nvidia-h200", "sm90", 132)
    choices, default = target_of(h200).choices(BF16), target_of(h200).default_config(BF16)
    covers = {
        tiles_name(few): name
        for name in set(TILES) - choices.covered
        if (few := few_config(with_tiles(default, tiles_of(name)), BF16, h200)) is not None
    }
    assert choices.covered and choices.covered <= covers.keys()
    for name in choices.covered:
        config = with_tiles(default, tiles_of(name))
        assert space.decode(space.encode(config, choices), default) == config


@pytest.mark.parametrize("tiles", ["no-tiles-at-all", "p128x64s2w4-d16x64s2w4-c9-v1"])
def test_unknown_tiles_get_no_proposal_of_the_sampler(tiles: str) -> None:
    study = Study(BF16, GPU, bucket=Bucket.parse(BUCKET), trials=[], neighbours=[], seed=1)
    assert study.propose(Within(frozenset({tiles}))) is None


def test_shipped_tiles_are_part_of_what_may_be_tried() -> None:
    shipped = target_of(GPU).choices(BF16).shipped
    assert shipped is not None and DEFAULT_TILES in shipped and len(shipped) > 1


@pytest.mark.parametrize(
    ("tiles", "gets"),
    [(DEFAULT_TILES, True), (next(t for t in TILES if t != DEFAULT_TILES), False)],
)
def test_a_captured_bucket_gets_configs_of_its_tiles_or_nothing(
    tmp_path: Path, tiles: str, gets: bool
) -> None:
    tuner = live_tuner(tmp_path)
    keys = {"geometry": str(BF16), "device": str(GPU), "build": "cuda-test"}
    tuner.ingest(message(1, [record(i) for i in range(40)], **keys))
    seen = [SeenBucket(bucket=BUCKET, steps=50, captured=True, tiles=tiles)]
    offered = []
    for _ in range(8):
        experiment = tuner.next_experiment(ask(buckets=seen, **keys))
        if experiment is None:
            break
        offered.append(PodConfig.from_dict(experiment.candidate))
        LiveServer(tuner, lambda _config: 0.0).run(experiment)
    assert bool(offered) == gets and len(offered) in (0, 8)
    assert {tiles_name(config) for config in offered} <= {tiles}
    tuner.close()
