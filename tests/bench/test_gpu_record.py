"""What is filed after a visit to a GPU: merged numbers, tables, spreads, ncu's summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.timed import entry

from benchmarks.gpu.common.machines import Cuda, Emulator
from benchmarks.gpu.profile import ncu, once
from benchmarks.gpu.speed.cases import BenchmarkCaseError, find, make_case, sample
from benchmarks.gpu.speed.summary import of_case
from benchmarks.gpu.visit import headlines, kept, record, tables
from benchmarks.gpu.visit.problems import RecordError

MACHINE = Emulator()
GPU = object.__new__(Cuda)


def test_a_case_is_found_by_number_name_and_part_of_its_name() -> None:
    assert find(GPU, "12").name == find(GPU, "flashinfer 6K/7K").name == "FlashInfer 6K/7K"
    assert find(GPU, "figure 14, yi").name == "figure 14, Yi-6B"
    assert find(GPU, sample(0)[7].name) == sample(0)[7]
    assert find(MACHINE, "1").head_dim == 64
    for wrong in ("13", "0", "C9"):
        with pytest.raises(BenchmarkCaseError, match=f"{wrong!r}.*12 'FlashInfer 6K/7K'"):
            find(GPU, wrong)


def test_parts_of_a_case_are_its_chunk_and_its_decodes() -> None:
    spec = find(MACHINE, "C0")
    q_lens = {
        part: make_case(spec, MACHINE.device, part).batch.q_indptr.diff().tolist()
        for part in ("all", "prefill", "decode")
    }
    assert q_lens["all"] == q_lens["prefill"] + q_lens["decode"]
    assert q_lens["prefill"] == [spec.chunk] and q_lens["decode"] == [1] * spec.decodes


def test_cases_measured_again_replace_the_recorded_ones() -> None:
    cases = {"a": entry(1, 1), "b": entry(2, 2)}
    recorded: dict[str, Any] = {"gpu": "H", "date": "x", "timing": 1, "cases": cases}
    rerun: dict[str, Any] = {
        "rerun": ["b", "z"],
        "machine": {"utc": "now", "kernel_build": "new"},
        "cases": {"b": entry(4, 8)},
    }
    merged = record.merged(rerun, recorded, "H")
    assert merged["cases"]["a"] == recorded["cases"]["a"] and list(merged["cases"]) == ["a", "b"]
    assert merged["cases"]["b"]["machine"]["kernel_build"] == "new" and "rerun" not in merged
    drawn = tables.cases(merged)
    assert "| b | 1@1 | 1@1 | 4 | 4 | 8 | 8 | 2.00 |" in drawn and "other rows: b." in drawn
    with pytest.raises(RecordError, match="numbers without --cases"):
        record.merged(rerun, recorded, "another")


def test_numbers_of_a_gpu_are_filed_beside_those_of_another() -> None:
    names = {
        gpu: record.path_of("numbers", gpu).name for gpu in ("NVIDIA H100 80GB", "NVIDIA H200")
    }
    assert list(names.values()) == ["gpu_numbers.json", "gpu_numbers_h200.json"]
    assert record.path_of("grid", "NVIDIA H200").name == "gpu_grid_h200.json"
    assert record.path_of("grid", "NVIDIA H100 80GB").name == "gpu_grid.json"
    assert record.path_of("checks", "NVIDIA H200").name == "gpu_checks.json"
    assert record.path_of("versus", "NVIDIA H200", "wide").name == "gpu_versus_wide.json"
    summary = {"fused_vs_serial_geomean": 1.2, "by_case": {"a": {"default_vs_best_serial": 0.9}}}
    found = {
        line[0]: line[1] for line in headlines.headlines({"numbers": {"summary": summary}}, "h200")
    }
    assert found == {
        "h200.fused_vs_serial_geomean": 1.2,
        "h200.default_vs_best_serial_min": 0.9,
        "h200.default_vs_best_serial_max": 0.9,
    }


def test_kernels_that_cannot_read_a_paged_cache_are_compared_apart() -> None:
    def run(name: str, us: float, part: str) -> dict[str, Any]:
        return {"name": name, "median_us": us, "part": part}

    one = entry(100, 200, prefill=80)
    one["runs"][2]["name"], one["runs"][3]["name"] = "ours prefill default", "ours decode default"
    one["runs"] += [
        run("torch cudnn prefill", 40, "prefill"),
        run("torch cudnn decode", 30, "decode"),
    ]
    one["runs"] += [run("flashinfer prefill fa3", 60, "prefill")]
    one["floor"]["decode_us"] = 40.0
    ratios = of_case(one)
    assert ratios["fused_vs_best_serial"] == 1.1 and ratios["fused_vs_contiguous_serial"] == 0.7
    assert ratios["prefill_vs_fa3"] == 0.75 and ratios["decode_floor_ratio"] == 1.25


def test_what_was_slimmed_before_keeps_its_count() -> None:
    once_slim = kept.kept("numbers", {"cases": {"a": entry(1, 1)}})
    assert kept.kept("numbers", once_slim)["cases"]["a"]["configs_tried"] == 1
    assert len(once_slim["cases"]["a"]["runs"]) == 4


def test_a_document_without_marks_is_refused() -> None:
    text = "a <!-- x:begin -->\nold\n<!-- x:end --> b"
    assert tables.replaced(text, "x", "n\\1w") == text.replace("old", "n\\1w")
    with pytest.raises(ValueError, match="y:begin"):
        tables.replaced(text, "y", "new")


def test_accuracy_headlines_come_from_checks_alone_or_within_first_contact() -> None:
    checks: dict[str, Any] = {"accuracy": {"cases": 9, "within": 8, "lse_error_ulp_max_128k": 2.5}}
    contact = {"steps": {"checks": {"result": {"passed": 3, **checks}}}}
    for documents in ({"checks": checks}, {"first_contact": contact}):
        lines = headlines.headlines(documents)
        found: dict[str, Any] = {line[0]: line[1:3] for line in lines}
        assert found["gpu.accuracy_cases"] == (9, "cases, 8 within the law")
        assert found["gpu.lse_error_ulp_max_128k"] == (2.5, "ulp")
    checks["accuracy"]["lse_error_ulp_max_128k"] = None
    assert headlines.headlines({"checks": checks}) == []


def test_ncu_summary_reads_units_and_orders_stalls() -> None:
    sections = {
        "Warp State Statistics / Stall Wait (inst)": "0.80",
        "Warp State Statistics / Stall Barrier (inst)": "1.20",
        "Warp State Statistics / Stall GMMA (inst)": "0",
        "Launch Statistics / Achieved Occupancy (%)": "99",
        "Occupancy / Achieved Occupancy (%)": "12.30",
        "Memory Workload Analysis / L2 Hit Rate (%)": "no data",
    }
    metrics = {
        "Command line profiler metrics / gpu__time_duration.sum (ns)": "836,512",
        "Command line profiler metrics / dram__bytes_read.sum (Gbyte)": "1.92",
    }
    found = ncu.summary(sections, metrics)
    assert found["stalls"] == {"Barrier": 1.2, "Wait": 0.8}
    assert list(found["stalls"]) == ["Barrier", "Wait"]
    assert found["occupancy_pct"] == 12.3 and found["l2_hit_pct"] is None
    assert found["duration_us"] == pytest.approx(836.512)
    assert found["dram_read_bytes"] == pytest.approx(1.92e9) and found["registers"] is None


def test_a_profiler_that_fails_ends_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def profile(case: str, strategy: str, seconds: float, selection: Any) -> dict[str, str]:
        return {"error": "no ncu in PATH"}

    monkeypatch.setattr(ncu, "profile", profile)
    with pytest.raises(SystemExit, match="C0: no ncu in PATH"):
        ncu.main(["--case", "C0", "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)["C0"]["tensor_pipe_pct"] is None
    assert json.loads((tmp_path / "ncu.json").read_text())["cases"]["C0"]["metrics"]["error"]


def test_once_attends_a_case_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    main: Callable[[list[str]], None] = once.main
    main(["--backend", "emulator", "--case", "9", "--repeats", "2"])
    assert capsys.readouterr().out == "2 calls\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "features.json is no JSON"),
        ("[]", "features.json is no document"),
        ("{}", "holds no result"),
        ('{"machine": {"utc": "2026-11-30T10:00:00"}}', "without a GPU"),
    ],
)
def test_what_cannot_be_filed_is_told_in_a_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(SystemExit):
        record.main([str(tmp_path)])
    assert words in capsys.readouterr().err
