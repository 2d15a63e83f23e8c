"""A server's exchange with a tuner that answers from memory."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from support.exchange import BUILD, DEVICE, GEOMETRY, Tuner

from pod_integrate.devices.clock import WallClock
from pod_integrate.live.exchange import Channel, Exchange
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable


@pytest.fixture
def tuner() -> Tuner:
    return Tuner()


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    active = ActiveTable(GEOMETRY, DEVICE, BUILD)
    return Channel(active, Recorder(WallClock(), sample=1.0), tmp_path / "deep" / "table.json")


@pytest.fixture
def exchange(tuner: Tuner, channel: Channel) -> Exchange:
    exchange = Exchange(
        "http://tuner", server="s1", token="secret", transport=httpx.MockTransport(tuner)
    )
    exchange.add(channel)
    return exchange
