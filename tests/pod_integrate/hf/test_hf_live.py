"""Live experiments from end to end: a model of transformers serves, a fake tuner decides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
from support.clock import HandClock

from benchmarks.engines import hf_models
from benchmarks.engines.sink import TraceSink
from pod_integrate import hf, op
from pod_integrate.devices.call import Attention
from pod_integrate.devices.cpu.device import CpuDevice, this_cpu
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.keys import Geometry

TOKENS = 8
LENGTHS = (5, 37, 90, 33)
RUNS = 200


class Plant:
    """Time of its own: a call takes a millisecond, one with `slow` as many times as long."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.slow: dict[PodConfig, float] = {}
        self.spoiled: PodConfig | None = None


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    made, attend = Plant(), op.attend

    def timed(attention: Attention, *args: Any, **kwargs: Any) -> Any:
        result = attend(attention, *args, **kwargs)
        made.clock.now += 1e-3 * made.slow.get(attention.config, 1.0)
        if attention.config == made.spoiled:
            result.out.add_(1.0)
        return result

    monkeypatch.setattr(op, "attend", timed)
    monkeypatch.setattr(CpuDevice, "clock", lambda self: made.clock)
    return made


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[TraceSink]:
    with TraceSink() as sink:
        monkeypatch.setenv("POD_ATTN_TUNER_URL", sink.url)
        monkeypatch.setenv("POD_ATTN_EXPERIMENTS", "1")
        monkeypatch.setenv("POD_ATTN_POLL_SECONDS", "0.1")
        hf.disable()
        hf.enable()
        yield sink
    hf.disable()
    hf.enable()


def run() -> Any:
    model = hf_models.build("llama", "pod")
    prompts = hf_models.random_prompts(LENGTHS)
    return hf_models.batched(model, prompts, TOKENS, max_batch_tokens=48)


def default() -> PodConfig:
    config = hf_models.MODELS["llama"]()
    geometry = Geometry(
        num_q_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=32,
        dtype="fp32",
        kv_dtype="fp32",
        page_size=hf_models.PAGE,
    )
    return this_cpu().default_config(geometry)


def outcome(sink: TraceSink, candidate: PodConfig, expected: Any) -> ExperimentReport:
    """Serve until an experiment on decode steps has ended; answers stay what they were."""
    given: list[str] = []

    def offer(ask: ExperimentAsk) -> Experiment | None:
        bucket = next((b.bucket for b in ask.buckets if b.bucket.startswith("d4")), None)
        if given or bucket is None:
            return None
        given.append(bucket)
        return Experiment(
            id="e1",
            bucket=bucket,
            number=1,
            phase="screen",
            baseline=default().to_dict(),
            candidate=candidate.to_dict(),
            steps=8,
            seconds=600.0,
        )

    sink.offer = offer
    for _ in range(RUNS):
        assert run() == expected
        if sink.reports and sink.reports[-1].done:
            break
    assert sink.bad == []
    return sink.reports[-1]


def test_a_candidate_like_the_default_shows_no_difference(plant: Plant, sink: TraceSink) -> None:
    expected = run()
    report = outcome(sink, default(), expected)
    assert (report.outcome, report.layers) == ("measured", 2)
    assert [math.log(p.candidate_us / p.baseline_us) for p in report.pairs] == [
        pytest.approx(0.0)
    ] * len(report.pairs)
    pairs = [pair for told in sink.reports for pair in told.pairs]
    assert len(pairs) == 8 and len({pair.batch for pair in pairs}) > 1


def test_a_planted_slow_candidate_shows_as_slow_as_it_is(plant: Plant, sink: TraceSink) -> None:
    expected = run()
    candidate = dataclasses.replace(default(), prefill_ctas=1, decode_ctas=1)
    plant.slow[candidate] = 1.2
    report = outcome(sink, candidate, expected)
    assert report.outcome == "measured"
    pairs = [pair for told in sink.reports for pair in told.pairs]
    assert [p.candidate_us / p.baseline_us for p in pairs] == [pytest.approx(1.2)] * 8
    assert {round(p.baseline_us) for p in pairs} == {1000}


def test_a_candidate_with_wrong_answers_on_live_inputs_never_answers(
    plant: Plant, sink: TraceSink
) -> None:
    expected = run()
    candidate = dataclasses.replace(default(), prefill_ctas=1, decode_ctas=1)
    plant.spoiled = candidate
    report = outcome(sink, candidate, expected)
    assert report.outcome == "mismatch" and "live decode step" in report.reason
    assert report.pairs == []
