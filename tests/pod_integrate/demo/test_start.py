"""Starting the demo's children on a machine that is too busy for Ray."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pod_integrate.demo.options import DemoOptions
from pod_integrate.demo.processes import Child, free_port
from pod_integrate.demo.run import Demo
from pod_integrate.errors import StartError

# As `pod-attn tuner up`, as far as a demo sees of it: without Ray it answers.
TUNER = """
import http.server, sys
if "--no-ray" not in sys.argv:
    raise SystemExit(sys.argv[2])
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


@contextlib.contextmanager
def demo(folder: Path, port: int, reason: str) -> Iterator[Demo]:
    """Not entered: that would take over the process's signals."""
    found = Demo(DemoOptions(state=folder), Console(quiet=True))
    command = [sys.executable, "-c", TUNER, str(port), reason]
    found._children.append(Child("tuner", command, log=folder / "tuner.log"))
    try:
        yield found
    finally:
        found.__exit__()


def test_a_tuner_that_ray_has_no_time_for_runs_without_it(tmp_path: Path) -> None:
    port = free_port(0)
    with demo(tmp_path, port, "CoreUnavailableError: Ray did not start in 3 attempts") as started:
        started._wait(0, f"http://127.0.0.1:{port}/")
        (child,) = started._children
        assert child.running and child.log.name == "tuner-no-ray.log"


def test_a_tuner_that_ends_for_another_reason_is_told(tmp_path: Path) -> None:
    port = free_port(0)
    with (
        demo(tmp_path, port, "SettingsError: no such folder") as started,
        pytest.raises(StartError, match="no such folder"),
    ):
        started._wait(0, f"http://127.0.0.1:{port}/")
