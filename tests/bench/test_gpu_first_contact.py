"""The parts of a first visit to a GPU: what it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.visit import first_contact


def test_it_ends_with_an_error_where_a_step_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [first_contact.Step("nonsense", ["nonsense"], 60)]
    monkeypatch.setattr(first_contact, "steps", lambda check_seconds: steps)
    with pytest.raises(SystemExit, match="failed are nonsense"):
        first_contact.main(["--out", str(tmp_path), "--backend", "emulator"])
