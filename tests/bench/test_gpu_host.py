"""The part `host` without a GPU: every kind of call is timed on the emulated SM."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.speed import host
from benchmarks.gpu.speed.cases import sized


def test_kinds_differ_in_how_many_launches_they_queue() -> None:
    machine = Emulator()
    found = host.kinds(machine, sized(machine, host.SPECS[0]))
    strategies = {name: (part, config.strategy) for name, (part, config) in found.items()}
    assert strategies["one launch"] == ("all", "fused")
    assert strategies["side by side"] == ("all", "streams")
    assert strategies["one after the other"] == ("all", "serial")
    assert {strategies[f"{part} alone"][0] for part in ("prefill", "decode")} == {
        "prefill",
        "decode",
    }
    # The default leaves it to the batch, so it may be either of the first two.
    assert found["default"][1].prefill_ctas == 0 and found["one launch"][1].prefill_ctas == 1


def test_every_call_is_timed_and_saved(tmp_path: Path) -> None:
    host.main(["--backend", "emulator", "--out", str(tmp_path)])
    cases = json.loads((tmp_path / "host.json").read_text())["cases"]
    assert list(cases) == [spec.name for spec in host.SPECS]
    for found in cases.values():
        assert len(found) == 6 and all(times["queue_us"] > 0 for times in found.values())
