"""The parts of benchmarks/gpu without a GPU: on the emulated SM, and on records made by hand."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.common.output import Output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.correctness import checks
from benchmarks.gpu.correctness.cases import SHAPES, Check, all_checks, tiny_checks
from benchmarks.gpu.peers import peers
from benchmarks.gpu.profile import corun_picture, ncu
from benchmarks.gpu.profile.corun_records import (
    Recorded,
    each_item_once,
    launch_with_records,
    share,
)
from benchmarks.gpu.speed import measure, numbers
from benchmarks.gpu.speed import summary as numbers_summary
from benchmarks.gpu.speed import sweep as sweep_part
from benchmarks.gpu.speed.cases import cases, default_of, find, make_case
from benchmarks.gpu.visit import first_contact
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.devices.emulated.cta_records import CtaRecord
from pod_integrate.errors import KernelUnavailableError
from pod_integrate.measure.accuracy import BF16_TOLERANCE, assert_matches_reference
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.op import Result
from pod_integrate.terms.keys import Geometry

MACHINE = Emulator()


def record(smid: int, op: int, begin: int, end: int, first: int = 0, items: int = 1) -> CtaRecord:
    return CtaRecord(smid, op, first, items, -1, begin, end)


def test_share_counts_the_time_in_which_an_sm_holds_both_ops() -> None:
    records = [
        record(0, 0, 0, 100),
        record(0, 1, 50, 100),
        record(1, 0, 0, 200),
        record(1, 1, 300, 400),
        record(2, 1, 0, 100, items=0),
    ]
    got = share(records)
    # SM 0: 50 of 100 ns; SM 1: 0 of 300 ns. The last prefill ends at 200 ns.
    assert got.of_busy == pytest.approx(50 / 400)
    assert got.while_both == pytest.approx(50 / 300)
    assert got.span_us == pytest.approx(0.4)


def test_an_item_attended_twice_or_never_is_told() -> None:
    fine = [record(0, 0, 0, 1, 0, 1), record(0, 1, 0, 1, 0, 2)]
    each_item_once(Recorded(fine, (1, 2)))
    with pytest.raises(AssertionError, match="prefill.*0 times"):
        each_item_once(Recorded(fine[1:], (1, 2)))
    with pytest.raises(AssertionError, match="decode.*2 times"):
        each_item_once(Recorded([*fine, record(1, 1, 0, 1, 1, 1)], (1, 2)))


def test_records_of_an_emulated_launch_cover_its_plan() -> None:
    spec = cases(MACHINE)[0]
    recorded = launch_with_records(
        MACHINE, make_case(spec, MACHINE.device), default_of(MACHINE, spec)
    )
    each_item_once(recorded)
    assert min(recorded.items) > 0
    picture = ET.fromstring(corun_picture.draw(recorded.records, "a < b", 4))
    bars = picture.findall("{*}rect")
    assert len(bars) == 3 + sum(r.items > 0 and r.smid < 4 for r in recorded.records)


def check_of(shape: str) -> Check:
    return next(c for c in tiny_checks(MACHINE.arch) if c.shape.name == shape)


def test_sweep_counts_failures_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [check_of(name) for name in ("page edges", "scale", "decode only")]
    attend = MACHINE.attend

    def wrong(case: Any, config: Any, **features: Any) -> Result:
        out, lse = attend(case, config, **features)
        return Result(out + ("scale" in features), lse)

    monkeypatch.setattr(MACHINE, "attend", wrong)
    tally = checks.Tally(Output(tmp_path, "checks"))
    checks.sweep(MACHINE, chosen, tally, time.monotonic() + 60)
    tally.save()
    saved = json.loads((tmp_path / "checks.json").read_text())
    assert (saved["passed"], saved["failed"], saved["not_run"]) == (2, 1, 0)
    assert list(saved["failures"]) == [chosen[1].name]


def test_sweep_ends_when_the_device_is_lost_and_lists_what_was_not_run(tmp_path: Path) -> None:
    tally = checks.Tally(Output(tmp_path, "checks"))

    def lost() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        tally.run("first", lost)
    checks.sweep(MACHINE, [check_of("scale")], tally, time.monotonic() - 1)
    assert (tally.passed, list(tally.failed)) == ([], ["first"])
    assert tally.not_run == [check_of("scale").name]


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_names_of_checks_are_unique(arch: Any) -> None:
    names = [check.name for check in all_checks(arch)]
    assert len(names) == len(set(names)) > 8 * len(SHAPES)


def test_rule_for_rounded_weights_is_tight_enough_to_miss_one_key_of_a_thousand() -> None:
    geometry = Geometry.uniform((2, 1, 64), "bf16")
    case = make_batch([1, 3], [1000, 40], geometry=geometry, seed=1)
    exact = attention_reference(*case)
    assert_matches_reference(case, Result(exact.out.bfloat16(), exact.lse), rounded_weights=True)
    less = make_batch([1, 3], [999, 40], geometry=geometry, seed=1)
    short = attention_reference(case.q, case.k_cache, case.v_cache, less.batch)
    answers = (short.out.bfloat16(), exact.lse), (exact.out.bfloat16(), short.lse)
    for wrong in answers:
        with pytest.raises(AssertionError, match="are outside"):
            assert_matches_reference(case, Result(*wrong), rounded_weights=True)


def run_of(name: str, us: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "median_us": us, **more}


def test_ratios_leave_out_wrong_answers_and_missing_times() -> None:
    entry = {
        "floor": {"fused_us": 50.0},
        "runs": [
            run_of("ours", 120, part="all", strategy="fused", label="default"),
            run_of("ours", 100, part="all", strategy="fused", label="tried"),
            run_of("ours", 160, part="all", strategy="serial"),
            run_of("a", 70, part="prefill", difference=0.001),
            run_of("b", 60, part="decode", difference=0.001),
            run_of("c", 1, part="decode", difference=0.5),
            run_of("flashinfer BatchPOD", 5, part="all", difference=float("nan")),
            {"name": "flashinfer BatchAttention", "part": "all", "error": "no"},
        ],
    }
    ratios = numbers_summary.of_case(entry)
    assert ratios["fused_us"] == 100 and ratios["fused_default_us"] == 120
    assert ratios["fused_vs_serial"] == 1.6
    assert ratios["fused_vs_best_serial"] == 1.3
    assert ratios["floor_ratio"] == 2.0
    assert "fused_vs_batchpod" not in ratios and "fused_vs_batchattention" not in ratios
    summary = numbers_summary.summarize({"x": entry, "y": entry})
    assert summary["fused_vs_serial_geomean"] == 1.6 and summary["fused_vs_serial_cases"] == 2


def test_numbers_of_a_tiny_case_are_saved_with_errors_in_their_place(tmp_path: Path) -> None:
    machine, timer = MACHINE, ColdTimer(MACHINE, 1)
    output, until = Output(tmp_path, "numbers"), time.monotonic() + 60
    made = measure.Numbers(machine, output, timer, until, numbers_summary.summarize)
    wanted = [find(machine, "table 8")]
    others = [peer for peer in peers.PEERS if peer.name.startswith("torch")]
    first = functools.partial(numbers.first_pass, tried=others)
    measure.run(made, wanted, [first, numbers.second_pass])
    saved = json.loads((tmp_path / "numbers.json").read_text())["cases"][wanted[0].name]
    runs = {run["name"]: run for run in saved["runs"]}
    assert runs["torch flash prefill"]["difference"] < BF16_TOLERANCE
    assert "no bottom-right" in runs["torch cudnn prefill"]["error"]
    assert {run.get("strategy") for run in saved["runs"]} >= {"fused", "serial", "streams"}
    assert set(saved["floor"]) >= {"prefill_us", "decode_us", "fused_us"}


def test_sweep_of_tunables_finds_what_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cases(MACHINE)[0]

    def measure(self: Any, config: Any) -> float:
        if config not in self.times:
            self.times[config] = 100.0 + abs(config.decode_split_tokens - 1024) / 64
        return float(self.times[config])

    monkeypatch.setattr(sweep_part.Sweep, "measure", measure)
    result = sweep_part.run(MACHINE, spec, ColdTimer(MACHINE, 1), 60.0)
    assert result["tuned"]["us"] == result["best"]["us"] == 100.0
    assert result["left_out"] == 0 and "s1024" in result["best"]["config"]


NCU = """==PROF== Connected
"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name"
"0","pod_kernel","Occupancy","Achieved Occupancy","%","12.5",""
"0","pod_kernel","","dram__bytes_read.sum","Gbyte","2.01",""
"0","pod_kernel","Occupancy","","","","Bottleneck"
"""


def test_ncu_output_is_read_by_section_and_metric() -> None:
    assert ncu.parse(NCU) == {
        "Occupancy / Achieved Occupancy (%)": "12.5",
        "metrics / dram__bytes_read.sum (Gbyte)": "2.01",
    }
    assert ncu.parse("==ERROR== nothing") == {}


def test_a_step_that_hangs_is_stopped_and_a_failing_one_is_told(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    assert first_contact._wait(process, 0.2).startswith("stopped after")
    assert process.poll() is not None
    step = first_contact.Step("nonsense", ["nonsense"], 60)
    document = first_contact.run([step], tmp_path, "emulator")
    assert document["steps"]["nonsense"]["outcome"] == "exit code 1"
    assert "unknown" in document["steps"]["nonsense"]["log"]
    missing = first_contact.Step("tool", ["once"], 60, tool=("no-such-program",))
    outcome = first_contact.run([missing], tmp_path, "emulator")["steps"]["tool"]["outcome"]
    assert outcome == "not run: no no-such-program in PATH"


def test_only_peers_that_were_tried_with_success_are_used(tmp_path: Path) -> None:
    assert all(peer.name.startswith("torch") for peer in peers.usable(tmp_path))
    tried = {"flashinfer BatchPOD": {"outcome": "ok"}, "flashinfer decode": {"outcome": "exit"}}
    (tmp_path / "peers.json").write_text(json.dumps({"peers": tried}))
    assert [peer.name for peer in peers.usable(tmp_path)] == ["flashinfer BatchPOD"]
    spec = cases(MACHINE)[0]
    prefill = next(peer for peer in peers.PEERS if peer.name == "torch flash prefill")
    wrong = prefill._replace(make=lambda case, _: lambda: case.q[: spec.chunk] * 9)
    with pytest.raises(AssertionError, match="differs from ours"):
        peers.try_one(MACHINE, wrong)


def test_no_gpu_is_an_error_with_words() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(KernelUnavailableError, match="--backend emulator"):
        checks.main(["--backend", "cuda"])
