"""What brings a bucket's first promotion early: no trial that changes nothing, news of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from live_support import LiveServer, ask, entry_of, given, live_tuner, report, split_gains
from tuner_support import BUCKET, DEFAULT, Clock, message, record, trials

from pod_integrate.devices.cuda.choices import tiles_name, tiles_of
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Pair, SeenBucket
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.messages import StudyKey
from tuner.search.space import ANY, Within
from tuner.search.study import Study

H200 = DeviceKey("nvidia-h200", "sm90", 132)
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
CONFIG = target_of(H200).default_config(GEOMETRY)
NEAR, HYBRID = "p128@256+d8@256", "p2k@8k+d32@8k"


def study(bucket: str) -> Study:
    return Study(
        GEOMETRY, H200, trials=[], neighbours=[], seed=0, bucket=Bucket.parse(bucket)
    )  # fmt: skip


def proposed(found: Study, most: int, within: Within = ANY) -> list[PodConfig]:
    configs = []
    for _ in range(most):
        proposal = found.propose(within)
        if proposal is None:
            break
        configs.append(proposal.config)
    return configs


def kept(config: PodConfig, *names: str) -> bool:
    return all(getattr(config, name) == getattr(CONFIG, name) for name in names)


def test_parameters_that_do_nothing_in_a_bucket_are_never_tried_there() -> None:
    ratio = ("prefill_ctas", "decode_ctas", "strategy")
    decode = proposed(study("d32@8k"), 40)
    assert all(kept(config, *ratio, "max_prefill_waves") for config in decode)
    assert len({config.decode_split_tokens for config in decode}) > 3
    prefill = proposed(study("p2k@8k"), 40)
    assert all(kept(config, *ratio, "decode_split_tokens") for config in prefill)
    assert any(config.strategy == "serial" for config in proposed(study("p2k@8k+d32@8k"), 40))


def test_a_captured_bucket_has_few_configs_and_a_study_says_when_it_has_named_all() -> None:
    found = study("d32@8k")
    tiles = "p128x64s2w4-d16x192s1w4-c2-v1"
    configs = proposed(found, 100, Within(frozenset({tiles})))
    # Splits from 256 to 8192 keys, and none.
    assert len(configs) == len(set(configs)) <= 8
    assert found.propose(Within(frozenset({tiles}))) is None
    # News from elsewhere is tried all the same.
    found.revisit([dataclasses.replace(CONFIG, decode_split_tokens=128)])
    assert found.propose(Within(frozenset({tiles}))) is not None


def test_buckets_begin_with_different_tiles() -> None:
    firsts = {study(f"p2k@{n}k+d32@8k"): n for n in (1, 2, 4, 8, 16)}
    begun = {proposed(each, 4)[3] for each in firsts}
    assert len(begun) > 2


def told(found: Study, most: int, gains: Callable[[PodConfig], float]) -> list[PodConfig]:
    """What is proposed where each config gains so much: a logarithm."""
    configs = []
    for _ in range(most):
        (config,) = proposed(found, 1)
        found.tell(config, -gains(config))
        configs.append(config)
    return configs


def test_guesses_change_what_was_fastest_so_far() -> None:
    def finer(config: PodConfig) -> float:
        return 0.1 if config.decode_split_tokens == 1024 else -0.1

    _, _, split, *later, unsplit = told(study(HYBRID), 8, finer)
    assert (CONFIG.decode_split_tokens, split.decode_split_tokens) == (4096, 1024)
    assert {config.decode_split_tokens for config in later} == {1024}
    assert len({tiles_name(config) for config in later}) > 2
    # Where nothing was faster they change the default.
    alike = told(study(HYBRID), 7, lambda config: -0.1)[3:]
    assert {config.decode_split_tokens for config in alike} == {4096}


def test_a_guess_that_builds_on_other_tiles_is_tried_by_itself_where_these_are_captured() -> None:
    other = with_tiles(CONFIG, tiles_of("p128x64s1w4-d16x64s2w4-c2-v1"))
    found = Study(
        GEOMETRY, H200, trials=[], neighbours=[other], seed=0, bucket=Bucket.parse(HYBRID)
    )  # fmt: skip
    assert proposed(found, 2) == [CONFIG, other]
    found.tell(other, -0.3)
    mine = Within(frozenset({tiles_name(CONFIG)}))
    captured = proposed(found, 3, mine)
    assert captured[1] == dataclasses.replace(CONFIG, decode_split_tokens=1024)
    assert all(mine.allows(config) for config in captured)
    assert proposed(found, 1)[0].decode == other.decode


def test_a_plain_gain_is_confirmed_before_eight_trials(tmp_path: Path, clock: Clock) -> None:
    tuner = live_tuner(tmp_path, clock)
    server = LiveServer(tuner, lambda config: 0.1, sd=0.01)
    server.run(given(tuner))
    server.run(given(tuner))
    assert given(tuner).phase.startswith("confirm")
    tuner.close()


@pytest.mark.parametrize("gain", [0.0, 0.025])
def test_a_small_gain_waits_for_the_other_trials(gain: float, tmp_path: Path, clock: Clock) -> None:
    tuner = live_tuner(tmp_path, clock)
    server = LiveServer(tuner, lambda config: gain, sd=0.0, noise=0.001)
    for _ in range(7):
        experiment = given(tuner)
        assert experiment.phase == "screen"
        server.run(experiment)
    tuner.close()


def test_a_candidate_hopeless_on_two_steps_is_pruned_by_them(tmp_path: Path, clock: Clock) -> None:
    tuner = live_tuner(tmp_path, clock)
    server = LiveServer(tuner, split_gains)
    server.run(given(tuner))
    poor = given(tuner)
    tuner.report_experiment(report(poor, [Pair(100.0, 130.0, f"{i:08x}") for i in range(2)]))
    (trial,) = [t for t in trials(tuner, _key(BUCKET))["trials"] if t["number"] == poor.number]
    assert trial["state"] == "pruned"
    tuner.close()


def _key(bucket: str) -> StudyKey:
    fields = ask()
    return StudyKey(fields.geometry, fields.device, fields.build, bucket)


def test_what_one_bucket_promotes_its_neighbours_try_next(tmp_path: Path, clock: Clock) -> None:
    tuner = live_tuner(tmp_path, clock)
    lengths = [128, *[1] * 8]
    near = [record(i, lengths=(lengths, [256 + i] * 9)) for i in range(60)]
    tuner.ingest(message(1, records=near))
    seen = [SeenBucket(bucket=NEAR, steps=100, attention_us=4e5)]
    LiveServer(tuner, split_gains).run(given(tuner, buckets=seen))
    server = LiveServer(tuner, split_gains, name="live-2")
    while entry_of(tuner) is None:
        server.run(given(tuner, "live-2"))
    promoted = entry_of(tuner)
    assert promoted is not None and promoted.config != DEFAULT
    told = given(tuner, buckets=seen)
    assert PodConfig.from_dict(told.candidate) == promoted.config
    tuner.close()
