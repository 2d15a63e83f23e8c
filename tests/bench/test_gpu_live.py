"""How the gain of live tuning is weighed, from steps made by hand; no engine is started."""

from __future__ import annotations

import pytest

from benchmarks.gpu.engines import live
from benchmarks.gpu.visit import headlines
from pod_integrate.terms.trace import StepRecord

HYBRID, DECODES = "p1k@4k+d32@2k", "d32@2k"


def record(attention_us: float, q_lens: list[int], kv_lens: list[int]) -> StepRecord:
    return StepRecord(
        time=1.0, step=0, q_lens=q_lens, kv_lens=kv_lens, step_us=9e9,
        attention_us=attention_us, layers=8, config="c", source="default",
    )  # fmt: skip


def test_steps_without_a_time_are_left_out() -> None:
    decodes = ([1] * 32, [2048] * 32)
    records = [record(5.0, *decodes), record(0.0, *decodes), record(7.0, *decodes)]
    assert live.by_bucket(records) == {DECODES: [5.0, 7.0]}


def test_a_bucket_without_an_entry_counts_as_one() -> None:
    default = {HYBRID: [10.0] * 30, DECODES: [10.0] * 10}
    tuned = {HYBRID: [5.0] * 30, DECODES: [1.0] * 10}
    found = live.gain(default, tuned, [HYBRID])
    assert found["covered_share"] == 0.75
    assert found["buckets"][HYBRID]["speedup"] == 2.0
    # Three quarters of the time halved.
    assert found["speedup"] == pytest.approx(1 / (0.25 + 0.375))


def test_a_bucket_met_on_too_few_steps_counts_as_one() -> None:
    default = {HYBRID: [10.0] * 30}
    found = live.gain(default, {HYBRID: [5.0] * 7}, [HYBRID])
    assert (found["buckets"], found["speedup"]) == ({}, 1.0)


def test_without_any_timed_step_there_is_no_gain_to_tell() -> None:
    assert live.gain({}, {}, [HYBRID])["speedup"] is None
    assert live.decode_share({}, [DECODES]) is None


def test_share_of_decode_steps_is_of_their_time() -> None:
    default = {HYBRID: [99.0], DECODES: [3.0], "d8@1k": [1.0]}
    assert live.decode_share(default, [DECODES, HYBRID]) == 0.75


def test_headlines_name_the_model() -> None:
    document = {
        "gain": {"speedup": 1.04}, "decode_tuned_share": 0.5, "overhead": 0.004,
        "load": {"heads": 32, "layers": 16},
    }  # fmt: skip
    lines = {line[0]: line for line in headlines.headlines({"live": document})}
    assert lines["live.gpu_speedup"][1] == 1.04
    assert "32 heads, 16 layers" in lines["live.gpu_speedup"][2]
    assert lines["live.gpu_overhead_pct"][1] == pytest.approx(0.4)
