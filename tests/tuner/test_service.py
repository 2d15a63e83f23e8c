"""The tuner as a process: killed, restarted, measuring with the real op, stopped cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from process_support import SMALL, Process
from support.waiting import until
from tuner_support import STEPS, message, record

from pod_integrate.builds import native
from pod_integrate.devices.registry import device_named
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.table import MIN_STEPS
from pod_integrate.terms.trace import encode

# Of waits: Ray's processes, above all, take many times longer when the machine is busy.
PATIENCE = 300.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*flags: str, **options: float) -> Process:
        started.append(Process(tmp_path, *flags, **options))
        return started[-1]

    yield begin
    for process in started:
        if process.popen.poll() is None:
            process.end(signal.SIGKILL)


def real_message(sequence: int) -> bytes:
    keys = {
        "geometry": str(SMALL),
        "device": str(device_named("cpu").key_of(1)),
        "build": native.build_id("cpu"),
    }
    records = [
        record(i, lengths=([32, 1, 1, 1], [96, 700 + i, 650, 600]), layers=4)
        for i in range(16 * sequence, 16 * sequence + 16)
    ]
    return encode(message(sequence, records=records, **keys))


def test_kill_9_loses_nothing_that_was_acknowledged(start: Callable[..., Process]) -> None:
    first = start()
    acknowledged: list[int] = []

    def post_until_killed() -> None:
        for sequence in range(100_000):
            try:
                if first.post(encode(message(sequence))).status_code == 202:
                    acknowledged.append(sequence)
            except httpx.HTTPError:
                return

    poster = threading.Thread(target=post_until_killed)
    poster.start()
    until(lambda: len(acknowledged) >= 30, 60)
    os.kill(first.popen.pid, signal.SIGKILL)
    poster.join(30)
    first.end(signal.SIGKILL)
    second = start()
    totals = second.overview()["totals"]
    # One more may have been committed whose answer never arrived.
    assert totals["messages"] - len(acknowledged) in (0, 1)
    assert totals["records"] == STEPS * totals["messages"]
    for sequence in acknowledged:
        answer = second.post(encode(message(sequence))).json()
        assert answer == {"accepted": 0, "duplicate": True}
    assert second.end(signal.SIGTERM) == 0


def test_traces_become_a_table_with_the_real_op_and_a_killed_worker_is_replaced(
    start: Callable[..., Process],
) -> None:
    process = start("--workers=1", "--poor")
    for sequence in range(3):
        assert process.post(real_message(sequence)).status_code == 202
    until(lambda: process.overview()["totals"]["pairs"] > 0, PATIENCE)
    for child in process.children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    active = ActiveTable(SMALL, device_named("cpu").key_of(1), native.build_id("cpu"))
    keys = {
        "geometry": str(active.geometry), "device": str(active.device), "build": active.build,
    }  # fmt: skip
    until(lambda: process.client.get("/v1/table", params=keys).status_code == 200, PATIENCE)
    table = active.offer(process.client.get("/v1/table", params=keys).content)
    (entry,) = table.entries.values()
    assert entry.evidence.lower_bound > 1.0 and entry.evidence.steps >= MIN_STEPS
    row = process.overview()["buckets"][0]
    assert row["status"] == "promoted" and row["best_us"] < row["default_us"]
    assert process.end(signal.SIGINT) == 0


def test_ctrl_c_ends_everything_at_once_and_leaves_no_process(
    start: Callable[..., Process],
) -> None:
    process = start("--workers=2")
    until(lambda: len(process.children()) >= 2, 60)
    children = process.children()
    with process.client.stream("GET", "/v1/events") as response:
        next(response.iter_lines())
        process.popen.send_signal(signal.SIGINT)
        process.popen.wait(60)
    assert process.end(signal.SIGINT) == 0
    assert "stopped" in process.phases
    assert not psutil.wait_procs(children, timeout=60)[1]


def test_it_listens_on_loopback_only(start: Callable[..., Process]) -> None:
    process = start("--workers=1")
    for each in [psutil.Process(process.popen.pid), *process.children()]:
        addresses = {c.laddr.ip for c in each.net_connections("inet") if c.status == "LISTEN"}
        assert addresses <= {"127.0.0.1"}
    assert process.end(signal.SIGTERM) == 0


def kill_workers(process: Process, names: tuple[str, ...]) -> set[str]:
    """Kill Ray's processes of these actors; returns the names of those that were there."""
    killed = set()
    for child in process.children():
        # Some child of Ray's ends at any time.
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            for name in names:
                if name in command:
                    child.kill()
                    killed.add(name)
    return killed


def open_to_others(process: Process) -> set[tuple[str, str]]:
    """(process name, address) of listeners below this process, loopback left out."""
    found = set()
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in child.net_connections("inet"):
                loopback = each.laddr and each.laddr.ip.startswith(("127.", "::ffff:127."))
                if each.status == "LISTEN" and not loopback:
                    found.add((child.name(), each.laddr.ip))
    return found


def status(process: Process) -> str:
    """Of the first bucket."""
    return str(process.overview()["buckets"][0]["status"])


@pytest.mark.timeout(1800)
@pytest.mark.ray
def test_on_ray_a_killed_core_and_worker_come_back_and_nothing_acknowledged_is_lost(
    start: Callable[..., Process],
) -> None:
    process = start("--ray", "--workers=1", ready_seconds=2 * PATIENCE)
    assert process.overview()["tuner"]["host_mode"] == "ray"
    for sequence in range(3):
        assert process.post(real_message(sequence)).status_code == 202
    until(lambda: process.overview()["totals"]["pairs"] > 0, PATIENCE)
    actors = ("ray::Core", "ray::Measurer")
    assert kill_workers(process, actors) == set(actors)

    def answers() -> bool:
        try:
            answer = process.post(real_message(0))
        except httpx.TransportError:
            # The request that was under way when the core died; a server posts it again.
            return False
        return answer.status_code == 202 and answer.json()["duplicate"]

    until(answers, PATIENCE)
    assert process.overview()["totals"]["records"] == 48
    keys = {"geometry": str(SMALL), "build": native.build_id("cpu")}
    keys["device"] = str(device_named("cpu").key_of(1))
    # Whether anything beats the default in so few trials is luck; that the search ends is not.
    until(lambda: status(process) in ("promoted", "default is best"), PATIENCE)
    # A plain gain is promoted before the search ends.
    until(lambda: process.overview()["totals"]["trials"] >= 8, PATIENCE)
    table = process.client.get("/v1/table", params=keys)
    assert table.status_code == (200 if status(process) == "promoted" else 404)
    # Serve's replicas bind one internal gRPC port to [::]; nothing else may leave loopback.
    beyond = open_to_others(process)
    assert {ip for _, ip in beyond} <= {"::"} and len(beyond) <= 2
    children = process.children()
    assert process.end(signal.SIGINT, PATIENCE) == 0
    assert not psutil.wait_procs(children, timeout=60)[1]
