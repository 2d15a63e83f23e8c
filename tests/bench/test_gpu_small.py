"""The part `small` without a GPU: on the emulated SM."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.speed import small
from benchmarks.gpu.speed.cases import default_of
from pod_integrate.devices.cuda.engines import runs_both

MACHINE = Emulator()


def test_part_times_both_tiles_of_every_batch(tmp_path: Path) -> None:
    small.main(["--backend", "emulator", "--out", str(tmp_path), "--limit", "2", "--repeats", "1"])
    saved = json.loads((tmp_path / "small.json").read_text())
    assert list(saved["cases"]) == ["32/8/128 64@64 + 0@0", "32/8/128 64@64 + 4@1024"]
    assert all(tuple(entry["us"]) == small.CONFIGS for entry in saved["cases"].values())
    assert saved["summary"]["agree"] and saved["summary"]["batches"] == 2 and not saved["not_run"]


def test_what_no_time_was_left_for_is_told(tmp_path: Path) -> None:
    small.main(
        [*("--backend", "emulator", "--out", str(tmp_path), "--limit", "2"), "--seconds", "-1"]
    )
    saved = json.loads((tmp_path / "small.json").read_text())
    assert len(saved["not_run"]) == 2 and saved["summary"]["gain"] is None


def test_other_tiles_run_both_ops_and_neither_config_is_left_to_the_batch() -> None:
    default, closed, pair = small.configs_of(MACHINE, small.specs()[0])
    assert default == default_of(MACHINE, small.specs()[0])
    assert runs_both(pair) and not runs_both(closed)
    assert (closed.prefill_ctas, closed.decode_ctas) == (pair.prefill_ctas, pair.decode_ctas)
    assert closed.prefill_ctas == 1
