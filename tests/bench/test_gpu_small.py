"""The part `small` without a GPU: on the emulated SM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed import small
from benchmarks.gpu.speed.cases import default_of, sized
from pod_integrate.devices.cuda import batch_tiles
from pod_integrate.devices.cuda.engines import runs_both
from pod_integrate.measure.batches import Case
from pod_integrate.op import Result
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey

MACHINE = Emulator()
H200 = DeviceKey("nvidia-h200", "sm90", 132)


def run(folder: Path, *options: str) -> dict[str, Any]:
    small.main(["--backend", "emulator", "--out", str(folder), "--repeats", "1", *options])
    found: dict[str, Any] = json.loads((folder / "small.json").read_text())
    return found


def test_part_times_both_tiles_of_every_batch(tmp_path: Path) -> None:
    saved = run(tmp_path, "--limit", "2", "--sample", "1")
    names = [*(spec.name for spec in small.specs()[:2]), small.sample()[0].name]
    assert list(saved["cases"]) == names
    assert all(tuple(entry["us"]) == small.TILES for entry in saved["cases"].values())
    assert saved["summary"]["agree"] and saved["summary"]["batches"] == 3 and not saved["not_run"]


def test_what_no_time_was_left_for_is_told(tmp_path: Path) -> None:
    saved = run(tmp_path, "--limit", "2", "--sample", "0", "--seconds", "-1")
    assert len(saved["not_run"]) == 2 and saved["summary"]["gain"] == {}
    assert saved["summary"]["agree"] is None


@pytest.mark.parametrize("options", [("--sample", "-3"), ("--limit", "-1"), ("--repeats", "0")])
def test_counts_below_their_least_are_refused(
    options: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, *options)
    assert "must be at least" in capsys.readouterr().err


def test_the_rule_is_set_aside_while_both_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = property(lambda _: H200)
    monkeypatch.setattr(type(MACHINE.runs), "key", key)
    spec = small.specs()[0]
    q_lens, kv_lens = map(np.array, spec.lengths)
    found: list[PodConfig] = []

    def attend(case: Case, config: PodConfig) -> Result:
        found.append(batch_tiles.batch_config(config, spec.geometry, H200, q_lens, kv_lens))
        return real(case, config)

    real = MACHINE.attend
    monkeypatch.setattr(MACHINE, "attend", attend)
    entry = small.measure(MACHINE, sized(MACHINE, spec), ColdTimer(MACHINE, 1))
    assert small.chosen(MACHINE, spec) == small.TILES[1]
    assert {runs_both(config) for config in found[::2]} == {False}
    assert {runs_both(config) for config in found[1::2]} == {True}
    assert set(entry["us"]) == set(small.TILES)


def test_the_second_tiles_are_those_of_heavy_batches() -> None:
    spec = small.specs()[0]
    default, pair = small.configs_of(MACHINE, spec)
    assert default == default_of(MACHINE, spec) and runs_both(pair) and not runs_both(default)
    assert pair == batch_tiles.others(default, spec.geometry, H200)["heavy"]


def test_what_choosing_loses_is_over_the_quicker_of_both() -> None:
    slow, quick = small.TILES
    cases: dict[str, dict[str, Any]] = {
        "a": {"us": {slow: 12.0, quick: 10.0}, "chosen": quick, "difference": 0.0, "head_dim": 64},
        "b": {"us": {slow: 12.0, quick: 10.0}, "chosen": slow, "difference": 0.0, "head_dim": 128},
    }
    found = small.summarize(cases)
    assert found["over_quicker"] == {"64": 1.0, "128": 1.2}
    assert found["gain"][f"chosen: {slow}"]["geomean"] == 1.2
