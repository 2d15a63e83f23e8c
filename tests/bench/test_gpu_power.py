"""The part `power` without a GPU: what it makes of nvidia-smi's lines."""

from __future__ import annotations

import pytest

from benchmarks.gpu.speed import power
from benchmarks.gpu.visit.headlines import headlines

LINES = "".join(f"{650 + i % 3}.0, {1400 + i}, 700.00\n" for i in range(20)) + "65"


def test_samples_are_read_and_a_cut_line_is_left_out() -> None:
    samples = power.parse("[N/A], 1400, 700\n" + LINES)
    assert len(samples) == 20
    assert samples[0] == power.Sample(650.0, 1400.0, 700.0)


def test_medians_leave_the_settling_out() -> None:
    found = power.drawn(power.parse(LINES), calls=1000, seconds=2.0)
    assert found["us"] == 2000.0 and found["limit"] == 700.0
    assert found["ghz"] == pytest.approx(1.4135, abs=1e-3)
    assert found["joules"] == pytest.approx(found["watts"] * 2e-3)


def test_too_few_samples_say_what_to_try() -> None:
    with pytest.raises(power.MeterError, match="longer --each"):
        power.drawn(power.parse(LINES)[:6], calls=1, seconds=0.1)


def test_energy_bounds_both_ops_at_once() -> None:
    alone = {"us": 1000.0, "watts": 700.0, "joules": 0.7, "limit": 700.0}
    # At the limit alone, nothing is saved by running them together.
    both = {"prefill alone": alone, "decode alone": alone}
    assert power.energy_us(both, 100.0) == pytest.approx(2000.0)
    # Below it, what is left of the limit is: 600 W and 300 W over 100 W of idling.
    light = {**alone, "watts": 400.0, "joules": 0.4}
    assert power.energy_us({**both, "decode alone": light}, 100.0) == pytest.approx(1500.0)


def test_the_emulated_sm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        power.main(["--backend", "emulator"])
    assert "draws no power" in capsys.readouterr().err


def test_headlines_compare_time_and_joules_with_our_serial() -> None:
    serial, default = {"joules": 1.2, "us": 30.0}, {"joules": 1.0, "us": 20.0}
    calls = {"one after the other": serial, "default": default}
    document = {"power": {"cases": {"a": {"calls": calls}, "b": {"calls": calls}}}}
    found = {name: value for name, value, *_ in headlines(document, "h200")}
    assert found == {
        "h200.joules_serial_over_default_geomean": pytest.approx(1.2),
        "h200.sustained_vs_serial_geomean": pytest.approx(1.5),
    }
    assert headlines({"power": {"cases": {}}}, "h200") == []
