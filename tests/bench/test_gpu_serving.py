"""The serving part without an engine: loads, settings and its turns."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.engines import serving, serving_turns
from benchmarks.gpu.engines.serving_loads import (
    CONTEXT,
    LOADS,
    SHAPES,
    decode_graphs,
    engine_arguments,
    held,
    means,
    prefill_graphs,
    requests,
    running,
)
from benchmarks.gpu.engines.serving_plan import Plan, Served, parse_pairs, settings


@pytest.mark.parametrize(
    ("load", "prompt", "answer"),
    [
        ("arxiv", 9998, 468),
        ("azure-code", 2048, 28),
        ("azure-conversation", 1155, 211),
        ("mooncake", 8514, 339),
    ],
)
def test_cycles_have_the_means_of_their_logs(load: str, prompt: int, answer: int) -> None:
    found = means(LOADS[load])
    assert found[0] == pytest.approx(prompt, rel=0.01)
    assert found[1] == pytest.approx(answer, rel=0.02)
    assert all(p + a <= CONTEXT for p, a in LOADS[load])


def test_the_papers_load_has_its_ratios_at_16k() -> None:
    ratios = [round(prompt / answer) for prompt, answer in LOADS["pd"]]
    assert sorted(ratios) == [12, 15, 18]
    assert {prompt + answer for prompt, answer in LOADS["pd"]} == {16_500}


def test_any_stretch_of_whole_cycles_holds_the_same_prompts() -> None:
    load = LOADS["tiny"]
    sent = [(len(one["ids"]), one["new"]) for one in itertools.islice(requests(load, 256, 4), 20)]
    for first in range(4, 12):
        assert sorted(sent[first : first + 6]) == sorted(2 * load)
    assert sorted(sent[:4]) == sorted(running(load, 4))


def test_a_server_begins_as_it_would_be_for_ever() -> None:
    # Answers of 12, 8 and 10 tokens one after the other; ten requests, three tokens apart.
    found = running(LOADS["tiny"], 10)
    assert found == (
        *((201, 11), (204, 8), (207, 5), (210, 2)),
        *((91, 7), (94, 4), (97, 1), (152, 8), (155, 5), (158, 2)),
    )
    assert running(LOADS["tiny"], 0) == ()
    # Each is somewhere in an answer of its own prompt, and has a token to come.
    for load in LOADS.values():
        left = running(load, 50)
        assert len(left) == 50 and all(new >= 1 for _, new in left)
        assert {keys + new for keys, new in left} <= {p + a for p, a in load}


def test_as_many_are_held_as_the_cache_has_room_for() -> None:
    shape = SHAPES["llama3-8b"]
    # Keys of those that run at once, half done on average.
    keys = [keys for keys, _ in running(LOADS["pd"], 5000)]
    assert held(shape, LOADS["pd"]) == pytest.approx(shape.pool / statistics.mean(keys), rel=1e-3)
    assert held(shape, LOADS["azure-conversation"]) == shape.running


@pytest.mark.parametrize(
    ("name", "weights", "token"),
    [
        ("llama3-8b", 15.0, 128),
        ("yi-6b", 11.3, 64),
        ("llama2-7b", 12.6, 512),
        ("qwen3-8b", 15.3, 144),
    ],
)  # GiB, KiB
def test_engines_that_stand_side_by_side_fit_one_gpu(name: str, weights: float, token: int) -> None:
    shape = SHAPES[name]
    assert shape.beside(1) == shape.beside(2) == shape
    for engines in (2, 3, 4):
        cache = shape.beside(engines).pool * token / 2**20
        assert 110 < engines * (cache + weights) < 139 or shape.beside(engines) == shape
    assert held(shape.beside(4), LOADS["pd"]) < held(shape, LOADS["pd"])


def test_engines_differ_in_their_backend_and_the_page_that_it_needs() -> None:
    def of(backend: str, kv: str = "auto") -> dict[str, Any]:
        return engine_arguments(
            backend, Path("m"), SHAPES["llama3-8b"],
            device="cuda", chunks=[512, 2048], kv=kv, port=1,
        )  # fmt: skip

    fa3, pod, xqa = of("fa3"), of("pod"), of("trtllm_mha")
    assert {k for k in fa3 if fa3[k] != pod[k]} == {
        "prefill_attention_backend", "decode_attention_backend",
    }  # fmt: skip
    assert xqa["page_size"] == 64 and "page_size" not in pod
    assert of("pod", "fp8_e4m3")["kv_cache_dtype"] == "fp8_e4m3"
    assert fa3["chunked_prefill_size"] == 2048


def test_captured_sizes_reach_what_is_served() -> None:
    assert prefill_graphs([512, 1024]) == [256, 512, 768, 1024]
    assert max(prefill_graphs([8192])) == 2048
    assert decode_graphs(64)[:6] == [1, 2, 4, 8, 12, 16] and decode_graphs(64)[-1] == 64
    assert decode_graphs(6) == [1, 2, 4, 6]


def test_settings_are_compared_near_in_time_and_pod_is_mixed() -> None:
    options = argparse.Namespace(engines=["fa3", "pod"], unmixed=[8192], mixed=[1024, 512])
    assert [one.name for one in settings(options)] == [
        "fa3, 8192", "fa3, mixed, 1024", "pod, mixed, 1024", "fa3, mixed, 512", "pod, mixed, 512",
    ]  # fmt: skip


def test_a_pair_that_is_unknown_names_what_is_known() -> None:
    found = parse_pairs("tiny:tiny,llama3-8b:pd:fp8_e4m3,tiny:pd")
    tiny, eight = Served("tiny", "auto"), Served("llama3-8b", "fp8_e4m3")
    assert found == [(tiny, "tiny"), (eight, "pd"), (tiny, "pd")]
    plan = Plan(found, [])
    assert plan.served == [tiny, eight] and plan.loads(tiny) == ["tiny", "pd"]
    assert (tiny.name, eight.name) == ("tiny", "llama3-8b fp8_e4m3")
    assert [one.kv_dtype("cuda") for one in plan.served] == ["bf16", "e4m3"]
    for wrong in ("gpt:pd", "tiny:pd:fp4", "tiny", "tiny:pd:auto:x"):
        with pytest.raises(ValueError, match=f"'{wrong}' is no MODEL:LOAD.*models are llama3-8b"):
            parse_pairs(wrong)


TINY = Served("tiny", "auto")


class Engine:
    """Stands in for a process: full at once, answers stretches, or dies in the second one."""

    def __init__(self, speed: float, dies: bool = False) -> None:
        self.orders: list[str] = []
        self._speed, self._dies, self.stopped = speed, dies, False

    def order(self, line: str, limit: float) -> dict[str, Any]:
        self.orders.append(line)
        if line.startswith("load"):
            return {"seconds": 1.0}
        if self._dies and len(self.orders) > 2:
            raise RuntimeError("scheduler died")
        mixed = line.split()[1] == "1"
        steps, at = [], 0.0
        for number in range(60):
            # As many tokens as the prompts are answered with.
            chunks = [[144, 144]] if number % 3 == 0 else []
            steps.append([100.0 + number, at, at + 9.0 / self._speed, chunks, 3, 300])
            at += 10.0 / self._speed
        return {"unix": [100.0, 200.0], "whole": mixed or not self._dies, "steps": steps,
                "ttft_ms": [9.0], "itl_ms": [[4.0, 2]]}  # fmt: skip

    def stop(self) -> None:
        self.stopped = True


def serve(tmp_path: Path, engines: dict[str, Any], *more: str) -> serving_turns.Serving:
    options = serving._parse([
        "--device", "cpu", "--engines", "torch_native,pod", "--unmixed", "128", "--mixed", "64",
        "--pairs", "tiny:tiny", "--out", str(tmp_path), *more,
    ])  # fmt: skip
    with serving_turns.Serving(options, tmp_path / "work") as found:
        for number in range(options.rounds):
            found.saturated(engines, TINY, "tiny", settings(options), number)
        found.rated(engines, TINY, "tiny")
    return found


def test_engines_are_filled_once_and_measured_in_mirrored_turns(tmp_path: Path) -> None:
    engines = {"torch_native": Engine(1.0), "pod": Engine(1.25)}
    found = serve(tmp_path, dict(engines), "--rounds", "2", "--rates", "0.5")
    # Where it does not mix the cache is full, steps of 64 tokens run four beside prompts.
    full, beside = "load tiny 8", "load tiny 4"
    told = [" ".join(line.split()[:3]) for line in engines["torch_native"].orders]
    assert told == [
        *(full, "window 0 128", beside, "window 1 64", "window 1 64", full, "window 0 128"),
        *("rate tiny 0", "rate tiny 1"),
    ]
    assert [one["engine"] for one in found.document["runs"]["tiny, tiny"]["rates"]] == [
        "torch_native", "pod", "torch_native",
    ]  # fmt: skip
    assert [o.split()[0] for o in engines["pod"].orders] == ["load", "window", "window", "rate"]
    saved = json.loads((tmp_path / "serving.json").read_text())
    assert saved["summary"]["vs_mixed"]["geomean"] == pytest.approx(1.25)
    run = saved["runs"]["tiny, tiny"]
    assert len(run["windows"]) == 6 and len(run["rates"]) == 3
    assert not found.document["failed"] and not found.document["left_out"]


def test_arrivals_are_of_the_sides_that_are_named(tmp_path: Path) -> None:
    engines = {"torch_native": Engine(1.0), "pod": Engine(1.25)}
    found = serve(tmp_path, dict(engines), "--rates", "0.5,0.9", "--rate-sides", "pod,unmixed")
    rated = found.document["runs"]["tiny, tiny"]["rates"]
    assert [(one["engine"], one["mixed"], one["rate"]) for one in rated] == [
        ("pod", True, 0.5), ("torch_native", False, 0.5),
        ("pod", True, 0.9), ("torch_native", False, 0.9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--rated", "tiny:arxiv"], "tiny, arxiv"),
        (["--rate-sides", "stock"], "known are unmixed, pod, mixed"),
    ],
)
def test_arrivals_of_what_is_not_served_are_refused(
    wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        serving._parse(["--pairs", "tiny:tiny", *wrong])
    assert told in capsys.readouterr().err


def test_an_engine_that_dies_is_left_alone_and_the_others_go_on(tmp_path: Path) -> None:
    engines = {"torch_native": Engine(1.0, dies=True), "pod": Engine(1.0)}
    found = serve(tmp_path, dict(engines))
    assert found.document["failed"] == {
        "tiny, tiny, torch_native, mixed, 64": "scheduler died",
    }
    assert engines["torch_native"].stopped and not engines["pod"].stopped
    assert len(found.document["runs"]["tiny, tiny"]["windows"]) == 2


def test_what_has_no_time_left_is_said(tmp_path: Path) -> None:
    found = serve(tmp_path, {"pod": Engine(1.0)}, "--seconds", "0")
    assert found.document["left_out"] == ["tiny, tiny, pod, mixed, 64"]
    assert found.document["runs"]["tiny, tiny"]["windows"] == []
