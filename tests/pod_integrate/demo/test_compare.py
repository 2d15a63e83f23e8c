"""Tuned against default: what the table says is what runs, unlisted buckets count as one."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import torch
from support.tables import make_evidence
from support.web import Quiet, serving

from pod_integrate.builds import native
from pod_integrate.demo import compare
from pod_integrate.devices.registry import device_of, target_of
from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.keys import Bucket, Geometry
from pod_integrate.terms.table import ConfigTable, TableEntry
from tuner.measure.bench import OpBench
from tuner.messages import Pair
from tuner.view.overview import SAMPLES_SHOWN

GEOMETRY = Geometry.uniform((4, 2, 32), "fp32", page_size=1)
EVIDENCE = make_evidence("x", trial=7)
HYBRID, DECODE = Bucket.of([32, 1], [64, 64]), Bucket.of([1] * 64, [4096] * 64)


@pytest.fixture
def scope() -> dict[str, str]:
    return {
        "geometry": str(GEOMETRY),
        "device": str(device_of(torch.device("cpu")).key),
        "build": native.build_id("cpu"),
    }


@pytest.fixture
def posted() -> list[Any]:
    return []


@pytest.fixture
def tuner(scope: dict[str, str], posted: list[Any]) -> Iterator[str]:
    device = device_of(torch.device("cpu")).key
    tuned = dataclasses.replace(target_of(device).default_config(GEOMETRY), strategy="serial")
    table = ConfigTable(
        version=3,
        geometry=GEOMETRY,
        device=device,
        build=scope["build"],
        updated="2026-01-01T00:00:00Z",
        entries={HYBRID: TableEntry(tuned, EVIDENCE)},
    )
    samples = {
        "buckets": [
            {
                "bucket": str(HYBRID),
                "time_share": 0.6,
                "samples": [{"q_lens": [32, 1], "kv_lens": [64, 64 + i]} for i in range(30)],
            },
            {
                "bucket": str(DECODE),
                "time_share": 0.3,
                "samples": [{"q_lens": [1], "kv_lens": [4096]}],
            },
        ]
    }

    class Handler(Quiet):
        def do_GET(self) -> None:
            is_table = self.path.startswith("/v1/table")
            body = table.to_json() if is_table else json.dumps(samples).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"verdict": "rolled back"}')

    with serving(Handler) as url:
        yield url


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Strategies of the pairs that were asked for, and the last kv_len of their step."""
    asked: list[tuple[str, str, int]] = []

    def pairs(
        _bench: Any, one: Any, two: Any, _geometry: Any, lengths: Any, **_: Any
    ) -> list[Pair]:
        asked.append((one.strategy, two.strategy, lengths.kv_lens[-1]))
        # One pair in four is disturbed: the step's median is not.
        times = [(4000.0, 2000.0)] * 3 + [(4000.0, 9000.0)]
        return [Pair(*both, lengths.digest) for both in times]

    monkeypatch.setattr(OpBench, "pairs", pairs)
    return asked


def test_speedup_weighs_buckets_by_time_and_unlisted_ones_count_as_one(
    tuner: str, scope: dict[str, str], ran: list[tuple[str, str, int]]
) -> None:
    result = compare.compare_with_default(tuner, scope, seconds=1.0)
    assert {asked[:2] for asked in ran} == {("fused", "serial")}
    assert [row.speedup for row in result.buckets] == [2.0, 1.0]
    assert [row.lower_bound for row in result.buckets] == [2.0, None]
    assert result.covered == pytest.approx(0.9) and result.steps == compare.STEPS_PER_BUCKET
    assert result.speedup == pytest.approx(0.9 / (0.6 / 2 + 0.3))
    assert result.worst is result.buckets[0]
    assert result.buckets[0].document()["pairs"] == 4 * compare.STEPS_PER_BUCKET


def test_a_second_replay_takes_other_steps(
    tuner: str, scope: dict[str, str], ran: list[tuple[str, str, int]]
) -> None:
    compare.compare_with_default(tuner, scope, seconds=1.0)
    first = {kv_len for _, _, kv_len in ran}
    ran.clear()
    compare.compare_with_default(tuner, scope, seconds=1.0, skip=compare.STEPS_PER_BUCKET)
    assert len(first) == len(ran) == compare.STEPS_PER_BUCKET
    assert not first & {kv_len for _, _, kv_len in ran}


def test_what_is_shown_takes_more_steps_all_of_them_new_as_far_as_there_are(
    tuner: str, scope: dict[str, str], ran: list[tuple[str, str, int]]
) -> None:
    skip, steps = compare.STEPS_PER_BUCKET, compare.SHOWN_STEPS
    result = compare.compare_with_default(tuner, scope, seconds=1.0, skip=skip, steps=steps)
    # The tuner has 30 of them.
    assert result.steps == len(ran) == 30 - skip < steps <= SAMPLES_SHOWN - skip


def test_what_a_replay_measured_is_told_to_the_tuner(
    tuner: str, scope: dict[str, str], ran: list[tuple[str, str, int]], posted: list[Any]
) -> None:
    compared = compare.compare_with_default(tuner, scope, seconds=1.0)
    assert compare.feed_back(tuner, scope, compared) == [str(HYBRID)]
    (body,) = posted
    assert (body["bucket"], body["trial"]) == (str(HYBRID), 7)
    assert body["pairs"] == [[*pair] for pair in msgspec.to_builtins(compared.buckets[0].pairs)]


def test_real_op_runs_under_both_configs(tuner: str, scope: dict[str, str]) -> None:
    result = compare.compare_with_default(tuner, scope, seconds=0.2)
    row = result.buckets[0]
    assert row.default_us is not None and row.tuned_us is not None
    assert min(row.default_us, row.tuned_us) > 0


def test_both_times_of_a_ratio_are_of_one_pair_however_the_steps_differ() -> None:
    # Short steps gain a lot, long ones nothing: medians of both sides are those of no pair.
    pairs = [Pair(610.0, 10.0, f"short {i}") for i in range(5)]
    pairs += [Pair(202_388.0, 202_000.0, f"long {i}") for i in range(5)]
    pairs += [Pair(1250.0, 1000.0, "middle")]
    row = compare._filled(compare.BucketComparison("d1@1k", 1.0, "exact"), pairs)
    assert row.speedup == 1.25 and (row.default_us, row.tuned_us) == (1250.0, 1000.0)
    assert row.lower_bound is not None and row.lower_bound < 1.01


def test_total_has_a_bound_when_every_replayed_bucket_has_one() -> None:
    few = compare._filled(compare.BucketComparison("d1@1k", 0.5, "exact"), [Pair(2.0, 1.0, "a")])
    rest = compare.BucketComparison("d2@1k", 0.5, "default")
    assert compare.Comparison([few, rest], 1.0).lower_bound is None
    sure = few._replace(lower_bound=1.25)
    assert compare.Comparison([sure, rest], 1.0).lower_bound == pytest.approx(
        1 / (0.5 / 1.25 + 0.5)
    )


def test_table_of_another_machine_is_refused(tuner: str, scope: dict[str, str]) -> None:
    with pytest.raises(PodAttentionError, match="compare on that machine"):
        compare.compare_with_default(tuner, scope | {"build": "cpu-0000000000"}, seconds=1.0)


def test_silent_tuner_is_named(scope: dict[str, str]) -> None:
    with pytest.raises(PodAttentionError, match="did not answer /v1/table"):
        compare.compare_with_default("http://127.0.0.1:9", scope, seconds=1.0)
