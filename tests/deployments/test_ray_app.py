"""The application that the RayService deploys, on a real local Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pod_integrate.demo.ports import free_port
from pod_integrate.errors import SettingsError

# Importing Ray Serve under a newer pydantic.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")
SCRIPT = Path(__file__).parent / "serve_app.py"


@pytest.mark.ray
def test_serve_application_answers_asks_for_the_token_and_keeps_its_core(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(free_port())],
        env=os.environ | {"POD_TUNER_TOKEN": "only-for-this-test"},
        capture_output=True, text=True, timeout=420,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["tuner"]["host_mode"] == said["alive"] == "ray"
    assert said["refused"] == 401


def test_cluster_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.ray_app import app_builder

    monkeypatch.delenv("POD_TUNER_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="POD_TUNER_TOKEN"):
        app_builder({})


@pytest.mark.parametrize("name", ["port", "tokne"])
def test_argument_that_would_do_nothing_is_refused(name: str) -> None:
    from tuner.ray_app import app_builder

    with pytest.raises(SettingsError, match=name):
        app_builder({name: "1"})
