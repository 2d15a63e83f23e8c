"""Exchange: what reaches the tuner, and that nothing the tuner does comes back as an error."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.exchange import (
    BUCKET,
    BUILD,
    CONFIG,
    DEVICE,
    GEOMETRY,
    TILE,
    Handler,
    Tuner,
    record_steps,
    served,
    table,
)
from support.waiting import until

from pod_integrate.live.exchange import POSTED, UPDATED, Channel, Exchange
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig, TileConfig


def test_records_arrive_with_keys_token_and_rising_sequence(
    tuner: Tuner, channel: Channel, exchange: Exchange
) -> None:
    assert channel.recorder is not None
    for count in (3, 2):
        record_steps(channel.recorder, count)
        exchange.run_round()
    assert [len(m.records) for m in tuner.messages] == [3, 2]
    assert [m.sequence for m in tuner.messages] == [0, 1]
    first = tuner.messages[0]
    assert (first.server, first.geometry, first.device, first.build, first.seen) == (
        "s1",
        str(GEOMETRY),
        str(DEVICE),
        BUILD,
        3,
    )
    assert tuner.requests[0].headers["Authorization"] == "Bearer secret"
    assert exchange.counts == {POSTED: 5}


def test_idle_server_posts_nothing(tuner: Tuner, exchange: Exchange) -> None:
    exchange.run_round()
    assert [r.url.path for r in tuner.requests] == ["/v1/table"]


def test_new_table_is_used_saved_and_asked_for_by_etag(
    tuner: Tuner, channel: Channel, exchange: Exchange
) -> None:
    tuner.handlers["/v1/table"] = served(table(7))
    exchange.run_round()
    exchange.run_round()
    assert channel.active.lookup(BUCKET).config == CONFIG
    assert channel.active.version == 7
    assert exchange.counts == {UPDATED: 1}
    assert tuner.requests[-1].headers["If-None-Match"] == '"1"'
    assert tuner.requests[-1].url.params["geometry"] == str(GEOMETRY)
    restarted = ActiveTable(GEOMETRY, DEVICE, BUILD)
    assert channel.file is not None
    restarted.load_file(channel.file)
    assert restarted.version == 7
    assert list(channel.file.parent.iterdir()) == [channel.file]


INFEASIBLE = PodConfig(prefill=TileConfig(q_rows=16, kv_rows=32, warps=4), decode=TILE)
NONSENSE: dict[str, tuple[Handler, str]] = {
    "not JSON": (lambda r: httpx.Response(200, content=b"<html>"), "table_rejected"),
    "empty": (lambda r: httpx.Response(200, content=b""), "table_rejected"),
    "other build": (served(table(2, build="cpu-ffffffffff"), '"2"'), "table_rejected"),
    "config that cannot run": (served(table(2, config=INFEASIBLE), '"2"'), "table_rejected"),
    "huge": (lambda r: httpx.Response(200, content=b" " * (5 << 20)), "table_rejected"),
    "error": (lambda r: httpx.Response(500), "table_http_500"),
    "wrong token": (lambda r: httpx.Response(401), "table_http_401"),
    "redirect": (
        lambda r: httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        "table_http_302",
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_keeps_the_last_good_table_and_is_logged_once(
    name: str,
    tuner: Tuner,
    channel: Channel,
    exchange: Exchange,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tuner.handlers["/v1/table"] = served(table(1))
    exchange.run_round()
    assert channel.file is not None
    saved = channel.file.read_bytes()
    handler, kind = NONSENSE[name]
    tuner.handlers["/v1/table"] = handler
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            exchange.run_round()
    assert channel.active.version == 1
    assert channel.file.read_bytes() == saved
    assert exchange.counts[kind] >= 1
    assert len(caplog.records) == 1
    tuner.handlers["/v1/table"] = served(table(3), etag='"3"')
    exchange.run_round()
    assert channel.active.version == 3


def test_table_that_cannot_be_saved_is_still_used(
    tuner: Tuner, channel: Channel, exchange: Exchange, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    channel.file = tmp_path / "file" / "table.json"
    tuner.handlers["/v1/table"] = served(table(1))
    exchange.run_round()
    assert channel.active.version == 1
    assert exchange.counts["table_not_saved"] == 1


def test_pause_doubles_while_the_tuner_is_away_and_comes_back(
    tuner: Tuner, exchange: Exchange
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    tuner.handlers["/v1/table"] = refuse
    pauses = []
    for _ in range(8):
        pauses.append(exchange.pause_seconds)
        exchange.run_round()
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert max(pauses) == 60.0
    del tuner.handlers["/v1/table"]
    exchange.run_round()
    assert exchange.pause_seconds == 5.0


def test_our_own_bug_is_counted_and_the_thread_goes_on(
    tuner: Tuner, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    tuner.handlers["/v1/table"] = bug
    exchange.run_round()
    assert exchange.counts["internal_error"] == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_stop_returns_in_time_while_the_tuner_hangs(hanging_server: str, channel: Channel) -> None:
    exchange = Exchange(hanging_server, server="s1", poll_seconds=0.1)
    exchange.add(channel)
    exchange.start()
    until(lambda: any(t.name == "pod-exchange" for t in threading.enumerate()), 5)
    begin = time.monotonic()
    exchange.stop(timeout=0.2)
    assert time.monotonic() - begin < 3
    assert all(t.daemon for t in threading.enumerate() if t.name == "pod-exchange")


def test_thread_posts_what_is_left_when_it_stops(tuner: Tuner, channel: Channel) -> None:
    exchange = Exchange(
        "http://tuner", server="s1", poll_seconds=3600, transport=httpx.MockTransport(tuner)
    )
    exchange.add(channel)
    exchange.start()
    assert channel.recorder is not None
    record_steps(channel.recorder, 2)
    exchange.stop()
    assert sum(len(m.records) for m in tuner.messages) == 2
