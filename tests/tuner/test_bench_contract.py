"""Every Bench measures, refuses and names what it measured alike: one suite for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
import tuner_support
from support import emulated
from tuner_support import RecordedBench, SteppedBench

from pod_integrate.devices.base import Device
from pod_integrate.devices.registry import device_named, standing_in
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.measure import bench as bench_module
from tuner.measure.bench import Bench, MismatchError, OpBench
from tuner.measure.worker import measure
from tuner.messages import StepLengths, Task

STEPS = [StepLengths([17, 1, 1], [60, 33, 1]), StepLengths([1, 1], [40, 70])]


class Subject(NamedTuple):
    """A bench, and what it measures here.

    units  threads or SMs that it measures with
    wrong  makes all its answers wrong; None where there are no wrong ones
    """

    bench: Bench
    geometry: Geometry
    device: DeviceKey
    units: int
    config: PodConfig
    wrong: Callable[[pytest.MonkeyPatch], None] | None


def break_the_op(patch: pytest.MonkeyPatch) -> None:
    right = bench_module._run

    def wrong(*args: object) -> object:
        out, lse = right(*args)  # type: ignore[arg-type]
        return out + 1.0, lse

    patch.setattr(bench_module, "_run", wrong)


def on(device: Device, geometry: Geometry, units: int) -> Subject:
    config, key = device.default_config(geometry), device.key_of(units)
    return Subject(OpBench(device), geometry, key, units, config, break_the_op)


def op_on_cpu(_: ExitStack) -> Subject:
    return on(device_named("cpu"), tuner_support.GEOMETRY, 1)


def op_on_emulated_gpu(stack: ExitStack) -> Subject:
    return on(
        stack.enter_context(standing_in(emulated.emulated_gpu())), emulated.GEOMETRY, emulated.SMS
    )


def recorded(_: ExitStack) -> Subject:
    bench = RecordedBench(lambda config: 500.0)

    def break_it(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(bench, "wrong", lambda config: True)

    return made_up(bench)._replace(wrong=break_it)


def stepped(_: ExitStack) -> Subject:
    return made_up(SteppedBench(lambda config: 0.1, sd=0.01, seed=3))


def made_up(bench: Bench) -> Subject:
    key, config = tuner_support.DEVICE, tuner_support.DEFAULT
    return Subject(bench, tuner_support.GEOMETRY, key, key.units, config, None)


BREAKABLE = [op_on_cpu, op_on_emulated_gpu, recorded]


@pytest.fixture(params=[*BREAKABLE, stepped], ids=lambda made: made.__name__)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield request.param(stack)


def task_of(subject: Subject) -> Task:
    lengths = STEPS[0]
    return Task(
        id="t", geometry=str(subject.geometry), device=str(subject.device), build="b",
        bucket=str(Bucket.of(lengths.q_lens, lengths.kv_lens)), number=1, phase="screen",
        baseline=subject.config.to_dict(), candidate=subject.config.to_dict(), batches=STEPS,
        step_pairs=2, seconds=60.0, verify=True, layers=2, seed=5,
    )  # fmt: skip


@pytest.mark.parametrize(("count", "seconds"), [(1, 60.0), (3, 60.0), (9, 0.0)])
def test_pairs_are_at_most_as_many_as_asked_for_and_name_their_step(
    subject: Subject, count: int, seconds: float
) -> None:
    pairs = subject.bench.pairs(
        subject.config, subject.config, subject.geometry, STEPS[0],
        count=count, seconds=seconds, layers=1,
    )  # fmt: skip
    assert 1 <= len(pairs) <= count and (seconds == 0.0 or len(pairs) == count)
    assert {pair.batch for pair in pairs} == {STEPS[0].digest}
    for us in (us for pair in pairs for us in (pair.baseline_us, pair.candidate_us)):
        assert 0 < us < math.inf


def test_a_right_config_is_verified_with_any_seed(subject: Subject) -> None:
    for seed in (0, 1):
        subject.bench.verify(subject.config, subject.geometry, STEPS[0], seed)


@pytest.mark.parametrize("subject", BREAKABLE, indirect=True, ids=lambda made: made.__name__)
def test_a_wrong_answer_is_a_mismatch_that_a_report_says(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subject.wrong is not None
    subject.wrong(monkeypatch)
    with pytest.raises(MismatchError, match=r".+"):
        subject.bench.verify(subject.config, subject.geometry, STEPS[0], seed=1)
    report = measure(task_of(subject), "w", subject.bench)
    assert report.outcome == "mismatch" and report.reason and not report.pairs


def test_units_hold_within_their_block_and_another_may_follow(subject: Subject) -> None:
    for _ in range(2):
        with subject.bench.with_units(subject.units):
            subject.bench.verify(subject.config, subject.geometry, STEPS[1], seed=2)


def test_a_task_becomes_a_report_with_pairs_of_each_step(subject: Subject) -> None:
    report = measure(task_of(subject), "w", subject.bench)
    assert (report.outcome, report.reason) == ("measured", "")
    assert [pair.batch for pair in report.pairs] == [s.digest for s in STEPS for _ in range(2)]
