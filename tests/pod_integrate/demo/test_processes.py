"""Children are waited for, reported with their log, and stopped with all they started."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from pod_integrate.demo.ports import free_port
from pod_integrate.demo.processes import Child
from pod_integrate.errors import StartError

FAMILY = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
)


def test_ready_child_answers_and_stops(tmp_path: Path) -> None:
    port = free_port()
    serve = ["-m", "http.server", "--bind", "127.0.0.1"]
    child = Child("web", [sys.executable, *serve, str(port)], log=tmp_path / "log")
    try:
        assert child.wait_ready(f"http://127.0.0.1:{port}/", timeout=30) > 0
    finally:
        child.stop(grace=5)
    assert not child.running


def test_child_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    child = Child("bad", [sys.executable, "-c", "raise SystemExit('no luck')"], log=tmp_path / "l")
    with pytest.raises(StartError, match="(?s)bad ended with code 1.*no luck"):
        child.wait_ready("http://127.0.0.1:9/", timeout=30)
    child.stop()


def test_stop_takes_grandchildren_along(tmp_path: Path) -> None:
    child = Child("family", [sys.executable, "-c", FAMILY], log=tmp_path / "log")
    root = psutil.Process(child._process.pid)
    while not (family := root.children(recursive=True)):
        time.sleep(0.02)
    os.kill(root.pid, signal.SIGKILL)
    child.stop(grace=1)
    gone, alive = psutil.wait_procs(family, timeout=60)
    assert gone and not alive
