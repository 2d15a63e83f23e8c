"""A port that was looked for is nobody else's until the child that was meant binds it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pod_integrate.demo import ports
from pod_integrate.demo.ports import free_port
from pod_integrate.errors import StartError

OTHER = "import sys; from pod_integrate.demo.ports import free_port; print(free_port({}))"


def of_another_process(preferred: int) -> int:
    """What a process is given that has ended since."""
    code = OTHER.format(preferred)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def test_taken_port_gives_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        assert free_port(taken) not in (0, taken)


def test_taken_port_is_not_kept_from_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        free_port(taken)
    assert of_another_process(taken) == taken


def test_the_system_gives_none_of_them_away_by_itself() -> None:
    told = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    if int(told[0]) <= ports._PORTS.stop:
        pytest.skip(f"this machine gives ports away from {told[0]} up")
    assert free_port() in ports._PORTS


def test_port_is_kept_from_other_processes_until_its_own_ends() -> None:
    mine = free_port()
    assert of_another_process(mine) != mine
    assert free_port(mine) == mine
    theirs = of_another_process(0)
    assert free_port(theirs) == theirs


def test_no_two_are_alike_and_none_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_PORTS", range(19990, 19993))
    assert len({free_port() for _ in range(3)}) == 3
    with pytest.raises(StartError, match="no free port on 127.0.0.1 among 19990 to 19992"):
        free_port()
