"""The part `fp8` without a GPU: on the emulated SM, and its sums on numbers made by hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.correctness.cases import byte_checks, feasible, tiny_byte_checks
from benchmarks.gpu.correctness.checks import _one
from benchmarks.gpu.speed import fp8
from benchmarks.gpu.speed.cases import sized
from benchmarks.gpu.visit.headlines import headlines
from pod_integrate.devices.cuda.limits import ARCHITECTURES, default_config
from pod_integrate.terms.keys import DeviceKey

MACHINE = Emulator()


def test_both_sides_of_a_pair_hold_the_same_numbers() -> None:
    both = fp8.pair(MACHINE, sized(MACHINE, fp8._HYBRID[0]))
    assert both.quantised.k_cache.dtype == torch.float8_e4m3fn
    assert torch.equal(both.quantised.k_cache.bfloat16(), both.plain.k_cache)
    assert both.quantised.batch is both.plain.batch


def test_decode_cases_have_no_chunk() -> None:
    for spec in fp8._DECODES:
        both = fp8.pair(MACHINE, sized(MACHINE, spec))
        assert both.plain.batch.q_indptr.diff().unique().tolist() == [1]


def test_tiles_of_both_kinds_are_tried_on_a_gpu() -> None:
    machine = SimpleNamespace(arch=MACHINE.arch, tiny=False)
    found = {
        spec.name: [config.prefill.warps for config in fp8.tried(machine, spec)]  # type: ignore[arg-type]
        for spec in (*fp8._DECODES, *fp8._PREFILL)
    }
    for name, warps in found.items():
        assert warps == ([8] if "prefill" in name else [4] * 6 + [8] * 3), name


def test_all_that_a_gpu_runs_is_compiled_first() -> None:
    h200 = SimpleNamespace(key=DeviceKey("nvidia-h200", "sm90", 132), default_config=None)
    h200.default_config = functools.partial(default_config, h200.key)
    machine = SimpleNamespace(arch=ARCHITECTURES["sm_90a"], tiny=False, runs=h200)
    found = list(fp8.variants(machine, [fp8._HYBRID[0]], tries=False))  # type: ignore[arg-type]
    # Both defaults and what batches heavy in prefill run; of bf16 also those of few rows.
    assert [v.kv_dtype for v in found] == ["bf16"] * 3 + ["e4m3"] * 2
    every = set(fp8.variants(machine, [fp8._HYBRID[0]], tries=True))  # type: ignore[arg-type]
    assert len(every) == 5 + 6 + 2


def test_a_prefill_case_is_one_chunk() -> None:
    for spec in fp8._PREFILL:
        both = fp8.pair(MACHINE, sized(MACHINE, spec))
        lengths = both.plain.batch.q_indptr.diff().tolist()
        assert len(lengths) == 1 and lengths[0] > 1


def test_part_measures_and_saves_every_case(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    fp8.main(["--backend", "emulator", "--out", str(tmp_path), "--repeats", "1"])
    saved = json.loads((tmp_path / "fp8.json").read_text())
    kinds = (fp8._DECODES, fp8._HYBRID, fp8._PREFILL, fp8._SHORT, fp8._NARROW)
    assert len(saved["cases"]) == sum(map(len, kinds))
    assert all(case["tried"] for case in saved["cases"].values())
    assert saved["summary"]["agree"] and not saved["not_run"]
    assert "ratio" in capsys.readouterr().out


def entry(ratio: float, **tried: float) -> dict[str, Any]:
    return {"bf16_us": 10.0, "e4m3_us": 10 * ratio, "ratio": ratio, "agree": True, "tried": tried}


def test_summary_is_of_each_kind_and_becomes_headlines() -> None:
    cases = {"decode a": entry(0.5), "decode b": entry(0.72, other=5.0), "hybrid a": entry(0.8)}
    summary = fp8.summarize(cases)
    assert summary["decode"] == pytest.approx(0.6)
    assert summary["decode_best"] == pytest.approx(0.5)
    assert summary["hybrid"] == pytest.approx(summary["hybrid_best"]) == pytest.approx(0.8)
    found = {name: value for name, value, *_ in headlines({"fp8": {"summary": summary}})}
    assert found == {
        "fp8.decode_time_vs_bf16": summary["decode"],
        "fp8.hybrid_time_vs_bf16": summary["hybrid"],
    }


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_checks_of_bytes_have_names_of_their_own(arch: Any) -> None:
    names = [check.name for check in byte_checks(arch) if feasible(check, arch)]
    assert len(set(names)) == len(names) > 50
    assert all("over e4m3" in name for name in names)


def test_checks_of_bytes_pass_on_the_emulated_sm() -> None:
    for check in tiny_byte_checks(MACHINE.arch):
        _one(MACHINE, check)
