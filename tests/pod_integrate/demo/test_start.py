"""Starting the demo's children on a machine that is too busy for Ray."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pod_integrate.demo import commands
from pod_integrate.demo.options import DemoOptions
from pod_integrate.demo.ports import free_port
from pod_integrate.demo.processes import Child
from pod_integrate.demo.run import Demo
from pod_integrate.errors import StartError
from tuner.settings import load

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
    port = free_port()
    with demo(tmp_path, port, "CoreUnavailableError: Ray did not start in 3 attempts") as started:
        started._wait(0, f"http://127.0.0.1:{port}/")
        (child,) = started._children
        assert child.running and child.log.name == "tuner-no-ray.log"


def test_the_tuner_of_a_demo_takes_nothing_from_a_service_of_the_same_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "TRACE_DIR", "TOKEN", "HOST"):
        monkeypatch.setenv(f"POD_TUNER_{name}", "0.0.0.0")
    for name, value in commands.tuner_env().items():
        monkeypatch.setenv(name, value)
    command = commands.tuner_command(DemoOptions(state=tmp_path), 1)
    assert command[-1] == str(tmp_path / "tuner")
    found = load(data_dir=tmp_path / "tuner")
    assert found.host == "127.0.0.1" and not found.token.get_secret_value()
    assert str(tmp_path) in found.url and found.archive_dir.is_relative_to(tmp_path)


WAITS = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(99)"


def test_a_second_interrupt_while_it_stops_leaves_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Demo(DemoOptions(state=tmp_path), Console(quiet=True))
    for name in ("first", "second"):
        child = Child(name, [sys.executable, "-c", WAITS], log=tmp_path / name)
        found._children.append(child)

    def interrupted(self: Child) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.__exit__()
    assert not any(child.running for child in found._children)


@pytest.mark.parametrize("ignored", [False, True], ids=["closed terminal", "nohup"])
def test_a_terminal_that_is_closed_stops_the_children(
    ignored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        with contextlib.ExitStack() as stack:
            if not ignored:
                ended = stack.enter_context(pytest.raises(SystemExit))
            with Demo(DemoOptions(state=tmp_path), Console(quiet=True)) as found:
                child = Child("child", [sys.executable, "-c", WAITS], log=tmp_path / "child")
                found._children.append(child)
                monkeypatch.setattr(Child, "stop", Child.kill)
                os.kill(os.getpid(), signal.SIGHUP)
        assert not child.running and (ignored or ended.value.code == 128 + signal.SIGHUP)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def test_a_tuner_that_ends_for_another_reason_is_told(tmp_path: Path) -> None:
    port = free_port()
    with (
        demo(tmp_path, port, "SettingsError: no such folder") as started,
        pytest.raises(StartError, match="no such folder"),
    ):
        started._wait(0, f"http://127.0.0.1:{port}/")
