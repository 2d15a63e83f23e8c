"""How the gain of live tuning is weighed, what is served and built for it, and its headlines."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.engines import live, live_gain, live_models
from benchmarks.gpu.engines.live_tuner import slowest
from benchmarks.gpu.visit import headlines
from pod_integrate.devices.cpu.device import this_cpu
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.keys import DeviceKey
from pod_integrate.terms.trace import StepRecord

HYBRID, DECODES = "p1k@4k+d32@2k", "d32@2k"
LENGTHS = [1] * 32, [2048] * 32


def record(attention_us: float, q_lens: list[int], kv_lens: list[int]) -> StepRecord:
    return StepRecord(
        time=1.0, step=0, q_lens=q_lens, kv_lens=kv_lens, step_us=9e9,
        attention_us=attention_us, layers=8, config="c", source="default",
    )  # fmt: skip


def test_steps_without_a_time_are_left_out() -> None:
    records = [record(us, *LENGTHS) for us in (5.0, 0.0, 7.0)]
    assert live_gain.by_bucket(records) == {DECODES: [5.0, 7.0]}


def test_a_bucket_without_an_entry_counts_as_one() -> None:
    default = {HYBRID: [10.0] * 30, DECODES: [10.0] * 10}
    tuned = {HYBRID: [5.0] * 30, DECODES: [1.0] * 10}
    found = live_gain.gain(default, tuned, [HYBRID])
    assert found["covered_share"] == 0.75
    assert found["buckets"][HYBRID]["speedup"] == 2.0
    # Three quarters of the time halved.
    assert found["speedup"] == pytest.approx(1 / (0.25 + 0.375))


def test_a_bucket_met_on_too_few_steps_counts_as_one() -> None:
    default = {HYBRID: [10.0] * 30}
    found = live_gain.gain(default, {HYBRID: [5.0] * 7}, [HYBRID])
    assert (found["buckets"], found["speedup"]) == ({}, 1.0)


def test_without_any_timed_step_there_is_no_gain_to_tell() -> None:
    assert live_gain.gain({}, {}, [HYBRID])["speedup"] is None
    assert live_gain.decode_share({}, [DECODES]) is None


def test_share_of_decode_steps_is_of_their_time() -> None:
    default = {HYBRID: [99.0], DECODES: [3.0], "d8@1k": [1.0]}
    assert live_gain.decode_share(default, [DECODES, HYBRID]) == 0.75


def test_what_is_planted_is_poor_but_no_disaster() -> None:
    speedups = (1.1, None, 0.99, 0.8, 0.6, 0.2)
    trials = [{"number": i, "speedup": s} for i, s in enumerate(speedups)]
    assert slowest(trials) == trials[4]
    assert slowest(trials[:3]) is None


def test_passes_differ_in_their_lengths_and_ask_for_as_many_tokens() -> None:
    for name, model in live_models.MODELS.items():
        options = live._parse(["--model", name])
        passes = live_models.loads(model, options)
        assert len({sum(request["new"] for request in one) for one in passes}) == 1
        lengths = [[len(request["ids"]) for request in one] for one in passes]
        assert len(set(map(tuple, lengths))) == len(passes)
        longest = max(len(request["ids"]) + request["new"] for one in passes for request in one)
        assert longest < model.context
        assert passes == live_models.loads(model, options)


class Hopper:
    """As far as the choice of variants goes."""

    target = target_of(DeviceKey("nvidia-h200", "sm90", 132))
    default_config, choices = target.default_config, target.choices
    require_feasible = target.require_feasible


def test_every_variant_of_the_search_space_is_built_beforehand() -> None:
    for name in ("llama8b", "smollm2"):
        geometry = live_models.geometry_of(live_models.MODELS[name])
        configs = live_models.configs_to_build(Hopper(), geometry)  # type: ignore[arg-type]
        assert len(configs) > 6
        firsts = [config for _, config in Hopper.choices(geometry).first]
        tiles = {(c.prefill, c.decode, c.ctas_per_sm, c.virtual_decode) for c in configs}
        assert {(c.prefill, c.decode, c.ctas_per_sm, c.virtual_decode) for c in firsts} <= tiles
    cpu = this_cpu()
    tiny = live_models.geometry_of(live_models.MODELS["tiny"])
    assert live_models.configs_to_build(cpu, tiny) == [cpu.default_config(tiny)]


def test_headlines_name_the_model_and_what_a_bad_config_cost() -> None:
    document = {
        "gain": {"speedup": 1.04}, "decode_tuned_share": 0.5,
        "overhead": {"cost": 0.004, "interval": [-0.001, 0.009], "rounds": 4},
        "rollback": {"steps": 120, "speedup": 0.7, "bucket": DECODES},
        "load": {"heads": [32, 8, 128], "layers": 32, "model": "llama8b"},
    }  # fmt: skip
    small = {"gain": {"speedup": 1.1}, "load": {"heads": [9, 3, 64], "layers": 30}}
    documents = {"live_llama8b": document, "live_smollm2": small}
    lines = {line[0]: line for line in headlines.headlines(documents)}
    assert lines["live.gpu_speedup_llama8b"][1] == 1.04
    assert "32/8 heads of 128, 32 layers" in lines["live.gpu_speedup_llama8b"][2]
    assert lines["live.gpu_speedup_smollm2"][1] == 1.1
    assert lines["live.gpu_speedup_smollm2"][3].endswith("--model smollm2 --weights FILE")
    assert lines["live.gpu_overhead_pct"][1] == pytest.approx(0.4)
    assert "-0.10 to 0.90" in lines["live.gpu_overhead_pct"][2]
    assert lines["live.decode_steps_tuned_share"][1] == 0.5
    assert lines["live.rollback_steps"][1] == 120 and "0.70" in lines["live.rollback_steps"][2]


def test_headlines_of_the_costs_are_the_larger_models() -> None:
    def document(cost: float) -> dict[str, Any]:
        return {
            "overhead": {"cost": cost, "interval": [0.0, 0.1], "rounds": 2},
            "load": {"heads": [9, 3, 64], "layers": 30},
        }

    only = headlines.headlines({"live_smollm2": document(0.02)})
    assert {line[0]: line[1] for line in only} == {"live.gpu_overhead_pct": 2.0}
    both = headlines.headlines({"live_smollm2": document(0.02), "live_llama8b": document(0.01)})
    assert {line[0]: line[1] for line in both} == {"live.gpu_overhead_pct": 1.0}
    assert not headlines.headlines({"live_llama8b": {"rollback": {"steps": None}, "load": {}}})
