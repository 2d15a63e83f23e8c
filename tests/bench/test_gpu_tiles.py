"""The part `tiles`, and `checks` of given tiles, without a GPU: on the emulated SM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.correctness import checks
from benchmarks.gpu.correctness.cases import SHAPES, feasible, tiles_checks
from benchmarks.gpu.speed import tiles
from benchmarks.gpu.speed.beside import in_l2
from benchmarks.gpu.speed.cases import make_case, sized
from benchmarks.gpu.visit import record
from pod_integrate.devices.cuda.choices import PAIRS, PAIRS_OF_8
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.model.floors import CASES

ROOT = Path(__file__).parents[2]
MACHINE = Emulator()
NAME, FEW = PAIRS[0], PAIRS_OF_8[0]


def test_part_times_every_config_on_every_part(tmp_path: Path) -> None:
    tiles.main(
        [
            *("--backend", "emulator", "--out", str(tmp_path), "--cases", "C1"),
            *("--tiles", NAME, "--splits", "2048"),
        ]
    )
    saved = json.loads((tmp_path / "tiles.json").read_text())
    names = {"default", "1:1", "streams", "serial", f"{NAME}, 2048"}
    (case,) = saved["cases"].values()
    assert set(case["parts"]) == {"all", "prefill", "decode"} and not saved["not_run"]
    assert all(set(part["us"]) == names and not part["errors"] for part in case["parts"].values())
    assert saved["summary"]["agree"]
    beside = case["parts"]["all"]["beside"][f"{NAME}, 2048"]
    assert set(beside) == {"hbm", "l2"}
    for found in beside.values():
        assert found["prefill"] > 0 and found["decode"] > 0
        assert found["L2, TB/s"] >= found["TB/s"]


def test_decodes_in_l2_read_one_requests_pages_and_prefill_its_own() -> None:
    spec = sized(MACHINE, CASES[0])._replace(decodes=3)
    case = make_case(spec, MACHINE.device)
    hot = in_l2(case).batch
    starts = [int(start) for start in hot.page_starts]
    pages = hot.page_indices.tolist()
    of_requests = [pages[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    before = case.batch.page_indices.tolist()
    assert of_requests[1] == of_requests[2] == of_requests[3] == before[starts[1] : starts[2]]
    assert of_requests[0] == before[: starts[1]]
    # The case itself stays.
    assert len(set(before)) == len(before)


def test_tiles_that_do_not_fit_are_left_out() -> None:
    spec = sized(MACHINE, CASES[0])._replace(head_dim=256)
    assert set(tiles.configs_of(MACHINE, spec, list(PAIRS), [4096])) == {
        *("default", "1:1", "streams", "serial")
    }


def test_summary_is_the_defaults_time_over_that_of_others() -> None:
    entry = {"us": {"default": 12.0, "x": 10.0}, "difference": {"default": 0.0, "x": 0.001}}
    summary = tiles.summarize({"a": {"parts": {"all": entry}}})
    assert summary == {"agree": True, "default_over": {"default": [1.0, 1], "x": [1.2, 1]}}
    entry["difference"]["x"] = 0.5
    assert not tiles.summarize({"a": {"parts": {"all": entry}}})["agree"]


def test_rates_are_of_each_op_alone_and_of_both() -> None:
    spec = CASES[0]
    found = tiles.rates(spec, {"all": {"x": 1000.0}, "decode": {"x": 500.0}})
    assert found["decode, TB/s"]["x"] == pytest.approx(2 * found["all, TB/s"]["x"], rel=0.01)
    assert "prefill, TFLOP/s" not in found


def test_checks_of_given_tiles_pass_and_say_what_ran(tmp_path: Path) -> None:
    checks.main(["--backend", "emulator", "--out", str(tmp_path), "--tiles", NAME])
    saved = json.loads((tmp_path / "checks_tiles.json").read_text())
    assert saved["failed"] == 0 and saved["passed"] == len(SHAPES) + 1
    assert all(NAME in name for name in saved["passed_names"])


def test_tiles_of_8_query_rows_are_left_out_of_larger_groups() -> None:
    spec = sized(MACHINE, CASES[0])._replace(num_q_heads=9, num_kv_heads=1)
    assert not any(FEW in name for name in tiles.configs_of(MACHINE, spec, [FEW], [4096]))
    arch = ARCHITECTURES["sm_90a"]
    groups = {
        check.shape.heads[0] // check.shape.heads[1]
        for check in tiles_checks(arch, [FEW], False)
        if feasible(check, arch)
    }
    assert groups == {1, 4, 5}


def test_checks_of_tiles_have_both_head_dims_and_other_settings() -> None:
    arch = ARCHITECTURES["sm_90a"]
    found = [check for check in tiles_checks(arch, [NAME], False) if feasible(check, arch)]
    assert {check.head_dim for check in found} >= {64, 128}
    assert any("small splits" in check.label for check in found)
    assert len({check.name for check in found}) == len(found)


def test_the_guide_shows_the_recorded_times_in_the_order_of_the_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "gpu.md").read_text()
    drawn = tmp_path / "gpu.md"
    monkeypatch.setattr(record, "_DOC", drawn)
    document = json.loads(record.path_of("tiles", "NVIDIA H200").read_text())
    drawn.write_text(guide)
    record.draw({"tiles": document}, "h200")
    assert drawn.read_text() == guide
    us = document["cases"]["C0"]["parts"]["all"]["us"]
    us["1:1"] *= 10
    record.draw({"tiles": document}, "h200")
    last = drawn.read_text().partition("<!-- h200-tiles:end -->")[0].splitlines()[-1]
    assert last.startswith(f"| C0, 1024@12288 + 80@12288 | 49 | {us['1:1']:.0f} |")
    record.draw({"tiles": document}, "gpu")
