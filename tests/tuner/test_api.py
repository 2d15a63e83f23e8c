"""HTTP over a real core on a real socket, without Ray and without measuring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from api_support import KEYS, MSGPACK, TOKEN, Served, post
from tuner_support import (
    BUCKET,
    BUILD,
    DEVICE,
    GEOMETRY,
    STEPS,
    RecordedBench,
    drive,
    message,
    record,
    split_matters,
)

from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.trace import MAX_MESSAGE_BYTES, encode


def test_a_posted_message_is_acknowledged_once_and_a_repost_is_a_duplicate(
    client: httpx.Client,
) -> None:
    first, again = post(client, encode(message())), post(client, encode(message()))
    assert (first.status_code, first.json()) == (202, {"accepted": STEPS, "duplicate": False})
    assert (again.status_code, again.json()) == (202, {"accepted": 0, "duplicate": True})


def test_json_is_taken_like_msgpack(client: httpx.Client) -> None:
    body = msgspec.json.encode(message())
    answer = client.post(
        "/v1/traces", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 202
    assert post(client, encode(message())).json()["duplicate"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xff",
        b"{}",
        msgspec.msgpack.encode({"version": 1}),
        encode(message(version=99)),
        encode(message(geometry="nonsense")),
        encode(message(records=[record(config="unknown")])),
        encode(message(records=[record(lengths=([5], [4]))])),
    ],
)
def test_a_malformed_message_is_a_400_that_names_the_place(
    client: httpx.Client, body: bytes
) -> None:
    answer = post(client, body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(("trace", "step"))
    assert client.get("/v1/overview").json()["totals"]["messages"] == 0


def test_an_oversized_body_is_refused_while_it_arrives(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 * MAX_MESSAGE_BYTES:
            sent += 1 << 16
            yield b"\0" * (1 << 16)

    try:
        answer = client.post("/v1/traces", content=endless(), headers=MSGPACK)
        assert answer.status_code == 413 and "post more often" in answer.json()["error"]
    except httpx.WriteError:
        # The server hung up before the client was done talking: refused as well.
        pass
    assert sent < 64 * MAX_MESSAGE_BYTES


def test_an_unknown_content_type_is_a_415(client: httpx.Client) -> None:
    answer = client.post("/v1/traces", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("served", [TOKEN], indirect=True)
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (TOKEN, 401),
        ("Bearer \xe9", 401),
        (f"Bearer {TOKEN}", 202),
    ],
)
def test_writes_need_the_token(client: httpx.Client, header: str | None, status: int) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = client.post("/v1/traces", content=encode(message()), headers=MSGPACK | headers)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert client.get("/v1/overview").status_code == 200


def test_the_table_has_a_strong_etag_and_is_sent_once(served: Served, client: httpx.Client) -> None:
    missing = client.get("/v1/table", params=KEYS)
    assert missing.status_code == 404 and "no table yet" in missing.json()["error"]
    post(client, encode(message()))
    drive(served.tuner, RecordedBench(split_matters))
    first = client.get("/v1/table", params=KEYS)
    ActiveTable(GEOMETRY, DEVICE, BUILD).offer(first.content)
    etag = first.headers["ETag"]
    assert etag.startswith('"')
    again = client.get("/v1/table", params=KEYS, headers={"If-None-Match": etag})
    assert again.status_code == 304 and not again.content and again.headers["ETag"] == etag
    other = client.get("/v1/table", params=KEYS, headers={"If-None-Match": '"other"'})
    assert other.content == first.content


def test_trials_tell_what_was_tried_and_which_is_promoted(
    served: Served, client: httpx.Client
) -> None:
    post(client, encode(message()))
    drive(served.tuner, RecordedBench(split_matters))
    found = client.get("/v1/trials", params=KEYS | {"bucket": BUCKET}).json()
    promoted = found["trials"][found["promoted"]]
    assert promoted["speedup"] == pytest.approx(2.0, rel=0.1)
    assert promoted["lower_bound"] > 1 and promoted["state"] == "complete"
    unknown = client.get("/v1/trials", params=KEYS | {"bucket": "p1k@1k"}).json()
    assert unknown == {"trials": [], "promoted": None}
    assert client.get("/v1/trials", params=KEYS).json() == {"error": "bucket: Field required"}


def test_samples_are_the_lengths_of_the_heaviest_buckets_of_one_scope(
    client: httpx.Client,
) -> None:
    light = [record(9, lengths=([1], [64]), attention_us=1.0)]
    post(client, encode(message(0, [record(1), record(2), *light])))
    found = client.get("/v1/samples", params=KEYS).json()["buckets"]
    assert [row["bucket"] for row in found] == [str(BUCKET), "d1@64"]
    assert sum(row["time_share"] for row in found) == pytest.approx(1.0)
    assert found[0]["time_share"] > 0.99 and len(found[0]["samples"]) == 2
    assert found[1]["samples"] == [{"q_lens": [1], "kv_lens": [64]}]
    other = KEYS | {"build": "cpu-0000000000"}
    assert client.get("/v1/samples", params=other).json() == {"buckets": []}


def test_events_stream_the_overview_and_end_with_the_server(
    served: Served, client: httpx.Client
) -> None:
    def read(lines: Iterator[str]) -> Any:
        for line in lines:
            if line == "event: overview":
                return json.loads(next(lines).removeprefix("data: "))
        raise AssertionError("the stream ended")

    with client.stream("GET", "/v1/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert read(lines)["totals"]["records"] == 0
        with httpx.Client(base_url=served.url, trust_env=False) as other:
            post(other, encode(message()))
        while read(lines)["totals"]["records"] != STEPS:
            pass
        served.app.state.feed.stop()
        with httpx.Client(base_url=served.url, trust_env=False) as other:
            post(other, encode(message(1)))
        # It ends instead of waiting for what comes next, and with a whole event.
        rest = list(lines)
        assert not [line for line in rest if '"records":16' in line.replace(" ", "")]
        assert rest == [] or rest[-1] == ""


def test_a_core_without_database_is_a_503_with_the_reason(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy as sa

    def broken(*_args: object, **_kwargs: object) -> None:
        raise sa.exc.OperationalError("insert", {}, Exception("database or disk is full"))

    monkeypatch.setattr("tuner.traffic.ingest._count_server", broken)
    answer = post(client, encode(message()))
    assert answer.status_code == 503 and "disk is full" in answer.json()["error"]
    assert answer.headers["Retry-After"] == "2"
    monkeypatch.undo()
    assert post(client, encode(message())).json() == {"accepted": STEPS, "duplicate": False}
