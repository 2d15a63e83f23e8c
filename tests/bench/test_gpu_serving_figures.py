"""Figures of the serving part, of steps and windows made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks._headlines import SECTIONS
from benchmarks.gpu.engines import serving_figures, serving_summary
from benchmarks.gpu.engines.serving_figures import Timed, shares, timed, waits
from benchmarks.gpu.engines.serving_loads import SHAPES
from benchmarks.gpu.engines.serving_scheduler import step_lengths
from benchmarks.gpu.visit import serving_record, serving_table
from benchmarks.gpu.visit.serving_headlines import serving_headlines
from pod_integrate.model.devices import DEVICES


class Mode:
    def __init__(self, decode: bool) -> None:
        self._decode = decode

    def is_decode(self) -> bool:
        return self._decode


def test_rows_of_one_token_beside_prompts_are_running_requests() -> None:
    batch = SimpleNamespace(
        forward_mode=Mode(False), seq_lens_cpu=torch.tensor([700, 9, 30]),
        extend_seq_lens_cpu=[500, 1, 1],
    )  # fmt: skip
    assert step_lengths(batch) == ([[500, 700]], 2, 39)
    batch.forward_mode = Mode(True)
    assert step_lengths(batch) == ([], 3, 739)


def step(kind: str, ms: float, tokens: int = 1000, decodes: int = 10) -> Timed:
    chunks = [] if kind == "decode" else [[tokens, tokens]]
    return Timed(ms * 0.9, ms * 0.1, chunks, 0 if kind == "prefill" else decodes, 50_000)


def test_a_step_lasts_until_the_next_begins_and_the_last_is_left_out() -> None:
    raw = [
        [10.0, 0.0, 4.0, [[8, 8]], 0, 0],
        [11.0, 5.0, 7.0, [], 2, 30],
        [12.0, 7.5, 9.0, [], 2, 32],
        [13.0, 9.5, 11.0, [], 2, 34],
    ]
    found = timed(raw, 10.5, 12.5)
    assert found == [Timed(2.0, 0.5, [], 2, 30)]
    assert [one.kind for one in timed(raw, 0.0, 99.0)] == ["prefill", "decode", "decode"]


def test_time_goes_to_kinds_of_steps_and_between_them() -> None:
    found = shares([step("prefill", 20.0), step("hybrid", 50.0), step("decode", 30.0)])
    assert [found[kind]["share"] for kind in serving_figures.KINDS] == pytest.approx(
        [0.2, 0.5, 0.3]
    )
    assert found["gap_share"] == pytest.approx(0.1)
    assert found["hybrid"]["tokens"] == 1010
    # A device that waited for its host.
    assert found["late_share"] == pytest.approx(0.1)
    assert shares([step("decode", 9.0)])["late_share"] == 0.0


def test_what_queueing_a_forward_takes_is_told_where_it_is_known() -> None:
    raw = [
        [10.0, 0.0, 4.0, [[8, 8]], 2, 30, 3.5, 3.0],
        [11.0, 5.0, 7.0, [[8, 8]], 2, 30, 9.5, 4.0],
        [12.0, 7.5, 9.0, [], 2, 32, 0.5, 0.5],
    ]
    found = shares(timed(raw, 0.0, 99.0))
    assert (found["hybrid"]["queued_ms"], found["hybrid"]["busy_ms"]) == (6.5, 3.5)
    assert "queued_ms" not in shares([step("decode", 9.0)])["decode"]


def test_goodput_is_of_tokens_that_came_in_time() -> None:
    found = waits({"ttft_ms": [500.0], "itl_ms": [[20.0, 3], [80.0, 1]]}, 2.0, 50.0)
    assert found["goodput_tokens_per_second"] == 1.5
    assert found["client_tokens_per_second"] == 2.5
    assert found["itl_ms_p50"] == 20.0 and found["ttft_ms_p99"] == 500.0


def window(engine: str, mixed: bool, chunk: int, steady: float, itl: float) -> dict[str, Any]:
    return {
        "engine": engine, "mixed": mixed, "chunk": chunk, "whole": True, "steady": steady,
        "measured": steady, "itl_ms_p50": itl / 2, "itl_ms_p99": itl,
        "steps": [[20.0, 1.0, [[1024, 8192]], 20, 200_000], [12.0, 1.0, [], 20, 200_000]],
    }  # fmt: skip


def document() -> dict[str, Any]:
    windows = [
        window("fa3", False, 8192, 1000.0, 200.0),
        window("fa3", False, 2048, 900.0, 100.0),
        window("fa3", True, 1024, 1040.0, 40.0),
        window("pod", True, 1024, 1100.0, 30.0),
        window("pod", True, 1024, 1140.0, 30.0),
        window("pod", True, 512, 1090.0, 20.0),
        {**window("pod", True, 256, 9999.0, 1.0), "whole": False},
        {**window("pod", True, 128, 9999.0, 1.0), "refused": "it held no decode-only steps"},
    ]
    run = {"model": "llama3-8b", "load": "arxiv", "kv": "bf16", "windows": windows}
    return {"load": {"stock": "fa3"}, "runs": {"llama3-8b, arxiv": run}}


def test_each_side_is_taken_at_its_best_chunk_of_stretches_that_count() -> None:
    found = serving_summary.summarize(document(), None)
    load = found["loads"]["llama3-8b, arxiv"]
    assert load["chunks"] == {"unmixed": 8192, "mixed": 1024, "pod": 1024}
    assert found["vs_unmixed"]["geomean"] == pytest.approx(1.12)
    assert found["vs_mixed"]["min"] == pytest.approx(1120 / 1040)
    assert found["itl_p99_ratio"]["geomean"] == pytest.approx(0.15)
    assert "share_of_perfect_overlap" not in found


def test_a_perfect_overlap_hides_the_shorter_attention_of_hybrid_steps() -> None:
    device = DEVICES["h200"]
    found = serving_summary.summarize(document(), device)
    hybrid = Timed(20.0, 1.0, [[1024, 8192]], 20, 200_000)
    sides = serving_summary.attention_ms(hybrid, SHAPES["llama3-8b"], "bf16", device)
    # 200K keys of 8 heads: 26 GB at 4.3 TB/s.
    assert sides[1] == pytest.approx(6.07, rel=0.01)
    ideal = 1.0 / (1.0 - min(sides) / 34.0)
    assert found["perfect_overlap"]["geomean"] == pytest.approx(ideal)
    assert 0.0 < found["share_of_perfect_overlap"]
    assert 0.0 < found["step_model_error"] < 1.0


def test_spreads_of_rates_are_those_of_speedups() -> None:
    found = document()
    for one in found["runs"]["llama3-8b, arxiv"]["windows"]:
        one["spread"] = 0.03 if one["engine"] == "pod" else 0.04
    load = serving_summary.summarize(found, None)["loads"]["llama3-8b, arxiv"]
    # Two rounds of `pod` at its best chunk size.
    assert load["vs_unmixed_spread"] == pytest.approx((0.03**2 / 2 + 0.04**2) ** 0.5)
    assert load["vs_mixed_spread"] == load["vs_unmixed_spread"]
    row = serving_table._rate({"steady": 1120.0, "spread": 0.01})
    assert row == "1,120 ± 11"


def test_nothing_is_said_of_a_load_that_lacks_a_side() -> None:
    part = document()
    part["runs"]["llama3-8b, arxiv"]["windows"].pop(2)
    assert serving_summary.summarize(part, None) == {"loads": {}}


def test_headlines_are_over_loads_and_of_fa3_alone() -> None:
    found = {"summary": serving_summary.summarize(document(), DEVICES["h200"]), **document()}
    told = {name: value for name, value, _, _ in serving_headlines({"serving": found})}
    assert told["serving.speedup_vs_unmixed_fa3_geomean"] == pytest.approx(1.12)
    assert told["serving.speedup_vs_mixed_fa3_min"] == pytest.approx(1120 / 1040)
    assert told["serving.step_model_error_pct"] == pytest.approx(
        100 * found["summary"]["step_model_error"]
    )
    known = {name for section in SECTIONS.values() for name in section}
    assert set(told) == {name for name in known if name.startswith("serving.")}
    found["load"] = {"stock": "triton"}
    assert serving_headlines({"serving": found}) == []
    assert serving_headlines({}) == []


def filed(*loads: str, steady: float, rates: tuple[float, ...] = (), cut: str = "") -> Any:
    """A recorded document with runs of these loads, one of them cut before `pod`'s turn."""
    runs: dict[str, Any] = {}
    for load in loads:
        windows = [
            window("fa3", False, 8192, 1000.0, 200.0), window("fa3", True, 1024, 1000.0, 40.0),
            *([] if load == cut else [window("pod", True, 1024, steady, 30.0)]),
        ]  # fmt: skip
        runs[f"llama3-8b, {load}"] = {
            "model": "llama3-8b", "load": load, "kv": "bf16", "windows": windows,
            "rates": [{"rate": share, "of": steady} for share in rates],
        }  # fmt: skip
    return {
        "machine": {"utc": f"at {steady}", "kernel_build": "k"}, "load": {"stock": "fa3"},
        "runs": runs, "gpu": "NVIDIA H200", "date": "d",
    }  # fmt: skip


def test_visits_add_to_one_another_by_model_load_and_cache() -> None:
    old = filed("arxiv", "pd", "mooncake", steady=1100.0, rates=(0.9,))
    new = filed("pd", "mooncake", "azure-code", steady=1300.0, cut="mooncake")
    found = serving_record.merged(new, old)
    ratios = {name: one["vs_unmixed"] for name, one in found["summary"]["loads"].items()}
    assert ratios == {
        "llama3-8b, arxiv": 1.1, "llama3-8b, pd": 1.3, "llama3-8b, mooncake": 1.1,
        "llama3-8b, azure-code": 1.3,
    }  # fmt: skip
    assert found["summary"]["vs_unmixed"]["max"] == 1.3
    when = {name: run["measured"]["utc"] for name, run in found["runs"].items()}
    assert when["llama3-8b, arxiv"] == when["llama3-8b, mooncake"] == "at 1100.0"
    assert when["llama3-8b, pd"] == "at 1300.0"
    # Arrivals were not measured again.
    assert found["runs"]["llama3-8b, pd"]["rates"][0]["of"] == 1100.0
    assert found["runs"]["llama3-8b, pd"]["rates_measured"]["utc"] == "at 1100.0"
    # Merging once more changes nothing of what is older.
    # Nor does a setting that was refused replace one that counted.
    bad = filed("pd", "azure-code", steady=9999.0)
    bad["runs"]["llama3-8b, pd"]["windows"][2]["refused"] = "lengthen --stretch"
    kept = serving_record.merged(bad, {**found, "gpu": "NVIDIA H200"})["summary"]["loads"]
    assert kept["llama3-8b, pd"]["vs_unmixed"] == 1.3
    assert kept["llama3-8b, azure-code"]["vs_unmixed"] == pytest.approx(9.999)
    again = serving_record.merged(filed("pd", steady=1200.0), {**found, "gpu": "NVIDIA H200"})
    assert again["runs"]["llama3-8b, arxiv"]["measured"]["utc"] == "at 1100.0"
    with pytest.raises(ValueError, match="against triton, what is recorded against fa3"):
        serving_record.merged({**new, "load": {"stock": "triton"}}, old)


def test_arrivals_have_a_table_of_their_own() -> None:
    found = document()
    for one in found["runs"]["llama3-8b, arxiv"]["windows"]:
        one["time"], one["attention"] = {"gap_share": 0.0}, {}
    found["runs"]["llama3-8b, arxiv"]["rates"] = [
        {"engine": engine, "mixed": engine == "pod", "chunk": 512, "rate": 0.9, "per_second": 1.75,
         "ttft_ms_p50": 900.0, "ttft_ms_p99": 4000.0, "client_tokens_per_second": 800.0,
         "goodput_tokens_per_second": 600.0}
        for engine in ("pod", "fa3")
    ]  # fmt: skip
    rows = serving_table.serving(found).split("\n\n")[1].splitlines()
    assert rows[2] == (
        "| llama3-8b, arxiv | 0.9 (1.75) | `fa3` | 512 | 0.90 / 4.00 | - / - | 800 | 75% |"
    )
    assert rows[3].startswith("|  | 0.9 (1.75) | `pod, mixed` |")


def test_page_has_a_row_for_each_side() -> None:
    found = document()
    for one in found["runs"]["llama3-8b, arxiv"]["windows"]:
        one["time"] = {"hybrid": {"share": 0.75}, "decode": {"share": 0.25}, "gap_share": 0.031}
        one["attention"] = {"hybrid": {"share": 0.4}} if one["engine"] == "pod" else {}
    rows = serving_table.serving(found).splitlines()
    assert len(rows) == 5
    assert rows[2].startswith("| llama3-8b, arxiv | `fa3` | 8192 | 1,000 | 100.0 / 200.0 |")
    assert rows[4] == (
        "|  | `pod, mixed` | 1024 | 1,120 | 15.0 / 30.0 | 0% / 75% / 25% | 3.1% | 40% / - |"
    )
