"""What one bucket's trials teach the next one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tuner_support import (
    KEY,
    RecordedBench,
    drive,
    make_tuner,
    message,
    record,
    split_matters,
)

from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.messages import StudyKey
from tuner.search.axes import Known, Traffic, apart
from tuner.search.board import Board
from tuner.search.study import Study
from tuner.search.transfer import lessons, teachers
from tuner.store.rows import Trial

GPU = DeviceKey("nvidia-h200", "sm90", 132)
LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SMALL = Geometry.uniform((9, 3, 64), "bf16", page_size=1)


def key(bucket: str, **changes: str) -> StudyKey:
    plain = StudyKey(str(LLAMA), str(GPU), "now", bucket)
    return plain._replace(**changes)


def cost(config: PodConfig) -> float:
    """0 at its best: two launches side by side, decodes in one piece, prefill never split."""
    return (
        0.1 * (config.strategy != "streams")
        + 0.05 * (config.decode_split_tokens != 0)
        + 0.1 * config.max_prefill_waves
    )


def told(bucket: str, geometry: Geometry = LLAMA, *, trials: int = 24) -> list[Known]:
    """What a search of a bucket found."""
    parsed = Bucket.parse(bucket)
    study = Study(geometry, GPU, trials=[], neighbours=[], seed=1, bucket=parsed)
    found = []
    for _ in range(trials):
        proposal = study.propose()
        assert proposal is not None
        if not proposal.infeasible:
            study.tell(proposal.config, cost(proposal.config))
            found.append(Known(proposal.config, cost(proposal.config), Traffic(parsed, geometry)))
    return found


def test_the_nearest_studies_of_a_device_teach_and_other_devices_never() -> None:
    near, far = key("p512@4k+d64@4k"), key("p512@4k+d32@16k")
    older, small = key("p512@4k+d32@4k", build="old"), key("p512@4k+d32@4k", geometry=str(SMALL))
    decodes, other = key("d32@4k"), key("p512@4k+d32@4k", device="nvidia-h100:sm90:132")
    malformed = key("no bucket")
    own = key("p512@4k+d32@4k")
    everything = [far, decodes, other, malformed, own, small, older, near, near]
    assert teachers(own, everything)[:2] == [near, far]
    assert set(teachers(own, everything)) == {near, far, older, small}
    assert teachers(malformed, everything) == []


def test_traffic_is_further_apart_by_a_side_than_by_an_octave() -> None:
    def place(bucket: str, geometry: Geometry = LLAMA, build: str = "") -> Traffic:
        return Traffic(Bucket.parse(bucket), geometry, build)

    own = place("p512@4k+d32@4k")
    others = ("p512@4k+d64@4k", "p512@4k+d32@16k", "d32@4k")
    distances = [apart(own.place(), place(other).place()) for other in others]
    assert distances == sorted(distances) and apart(own.place(), own.place()) == 0
    assert apart(own.place(), place("p512@4k+d32@4k", build="old").place()) > 0
    assert apart(own.place(), place("p512@4k+d32@4k", SMALL).place()) > 0


def test_lessons_are_the_latest_measured_trials_of_each_teacher() -> None:
    config = target_of(GPU).default_config(LLAMA)
    values = [*(float(i) for i in range(60)), None]
    trials = [
        Trial(
            id=i, number=i, state="complete", config=config, origin="sampler", value=value,
            created=0.0, updated=0.0,
        )
        for i, value in enumerate(values)
    ]  # fmt: skip
    near, older = key("p512@4k+d64@4k"), key("p512@4k+d32@4k", build="old")
    own = key("p512@4k+d32@4k")
    found = lessons(own, [older, near], lambda study: trials if study == near else trials[:2])
    assert [known.value for known in found[:3]] == [59.0, 58.0, 57.0]
    assert len(found) == 48 + 2
    assert {known.traffic.build for known in found} == {"", "old"}


def asked(study: Study, most: int) -> list[tuple[str, float]]:
    """Origin and cost of what a study proposes, each told."""
    found = []
    for _ in range(most):
        proposal = study.propose()
        assert proposal is not None
        found.append((proposal.origin, cost(proposal.config)))
        study.tell(proposal.config, found[-1][1])
    return found


def test_guesses_come_in_the_order_that_a_bucket_near_by_taught_and_none_is_left_out() -> None:
    alone, taught = (
        Study(LLAMA, GPU, trials=[], neighbours=[], seed=2, bucket=Bucket.parse("p512@8k+d32@4k"))
        for _ in range(2)
    )
    taught.learn(told("p512@4k+d32@4k"))
    first, by_lessons = asked(alone, 11), asked(taught, 11)
    assert by_lessons[0] == first[0] and by_lessons != first
    # The two that gain, before what the lessons say is no better than the default.
    assert {origin for origin, _ in by_lessons[1:3]} == {"streams", "unsplit"}
    assert sorted(origin for origin, _ in by_lessons) == sorted(origin for origin, _ in first)


def test_lessons_that_cannot_be_tried_here_order_nothing() -> None:
    strange = target_of(GPU).default_config(LLAMA)
    strange = dataclasses.replace(strange, decode_split_tokens=32)
    known = [Known(strange, -0.1, Traffic(Bucket.parse("p512@4k+d32@4k"), LLAMA))] * 12
    alone, taught = (
        Study(LLAMA, GPU, trials=[], neighbours=[], seed=2, bucket=Bucket.parse("p512@8k+d32@4k"))
        for _ in range(2)
    )
    taught.learn(known)
    assert asked(taught, 12) == asked(alone, 12)


def test_another_geometry_teaches_without_replacing_guesses() -> None:
    study = Study(
        LLAMA, GPU, trials=[], neighbours=[], seed=2, bucket=Bucket.parse("p512@4k+d32@4k")
    )
    study.learn(told("p512@4k+d32@4k", SMALL))
    origins = []
    for _ in range(4):
        proposal = study.propose()
        assert proposal is not None
        origins.append(proposal.origin)
    assert origins[:2] == ["default", "paper 1:1"] and "sampler" not in origins


def test_a_bucket_met_later_is_taught_by_those_in_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[StudyKey, list[Known]] = {}

    def kept(self: Board, key: StudyKey, tx: Connection | None = None) -> list[Known]:
        return heard.setdefault(key, lessons_of(self, key, tx))

    lessons_of = Board._lessons
    monkeypatch.setattr(Board, "_lessons", kept)
    tuner = make_tuner(tmp_path, trials=16)
    tuner.ingest(message())
    bench = RecordedBench(split_matters)
    drive(tuner, bench)
    lengths = [128, 1, 1, 1, 1], [512, 256, 256, 256, 256]
    steps = [
        record(i, lengths=(lengths[0], [kv_len + i for kv_len in lengths[1]])) for i in range(64)
    ]
    tuner.ingest(message(1, steps))
    drive(tuner, bench)
    later = next(k for k in tuner.search.campaigns if k != KEY)
    origins = [t.origin for t in tuner.search.campaigns[later].trials.values()]
    first = [t.origin for t in tuner.search.campaigns[KEY].trials.values()]
    assert origins[:2] == ["default", "neighbour"]
    # The neighbour is the finer split; no other guess is left out.
    assert set(first) - set(origins) == {"finer split"}
    # Its first lessons are what the first bucket had found by then, the latest trial first.
    assert heard[later][0].config == list(tuner.search.campaigns[KEY].trials.values())[-1].config
    assert len(heard[later]) > 10 and not heard[KEY]
    tuner.close()
