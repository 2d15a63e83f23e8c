"""Messages about experiments read back, and malformed, oversized or unknown ones are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pod_integrate.errors import TraceError
from pod_integrate.terms import experiment, wire
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.experiment import (
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    Pair,
    SeenBucket,
    StepLengths,
)

TILE = TileConfig(q_rows=64, kv_rows=32)
CONFIG = PodConfig(prefill=TILE, decode=TILE)
TOO_LONG = "x" * (wire.MAX_KEY + 1)
Message = ExperimentAsk | Experiment | ExperimentReport


def ask(**changes: Any) -> ExperimentAsk:
    fields: dict[str, Any] = {
        "version": experiment.WIRE_VERSION,
        "server": "server-1",
        "geometry": "q8kv4d64-fp32-kvfp32-s1-w-1-c0",
        "device": "some-cpu:avx2:4",
        "build": "cpu-0123456789",
        "buckets": [SeenBucket(bucket="d8@128", steps=40, attention_us=900.0)],
    }
    return ExperimentAsk(**(fields | changes))


def offer(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "id": "e1",
        "bucket": "d8@128",
        "number": 3,
        "phase": "screen",
        "baseline": CONFIG.to_dict(),
        "candidate": CONFIG.to_dict(),
        "steps": 16,
        "seconds": 600.0,
    }
    return Experiment(**(fields | changes))


def report(**changes: Any) -> ExperimentReport:
    fields: dict[str, Any] = {
        "version": experiment.WIRE_VERSION,
        "server": "server-1",
        "id": "e1",
        "outcome": "measured",
        "pairs": [Pair(10.0, 9.0, StepLengths([1], [9]).digest)],
        "layers": 30,
    }
    return ExperimentReport(**(fields | changes))


@pytest.mark.parametrize("message", [ask(), offer(), report(), report(done=False)])
def test_msgpack_and_json_read_back(message: Message) -> None:
    assert type(message).decode(message.encode()) == message
    assert type(message).decode(msgspec.msgpack.encode(message), json=False) == message


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (ask(version=99), "version 99 is unknown"),
        (ask(geometry="square"), "geometry"),
        (ask(device="toaster"), "device"),
        (ask(buckets=[]), "buckets"),
        (ask(buckets=[SeenBucket(bucket="d8@128", steps=1)] * 65), "buckets"),
        (ask(buckets=[SeenBucket(bucket="many", steps=1)]), "bucket 'many'"),
        (ask(buckets=[SeenBucket(bucket="d8@128", steps=-1)]), "steps"),
        (ask(buckets=[SeenBucket(bucket="d8@128", steps=1, tiles=TOO_LONG)]), "tiles"),
        (offer(bucket="d9@128"), "bucket 'd9@128'"),
        (offer(candidate={"prefill": 1}), "config"),
        (offer(candidate=CONFIG.to_dict() | {"decode_split_tokens": 16}), "decode_split_tokens"),
        (offer(steps=0), "steps"),
        (offer(seconds=float("inf")), "seconds"),
        (report(version=0), "version 0 is unknown"),
        (report(outcome="won"), "outcome"),
        (report(outcome="failed"), "needs a reason"),
        (report(outcome="mismatch", reason="far off", done=False), "the last one"),
        (report(reason="a\0b"), "reason"),
        (report(pairs=[Pair(0.0, 1.0)]), "pairs"),
        (report(pairs=[Pair(1.0, 1.0, "far too long")]), "pairs"),
        (report(layers=-1), "layers"),
    ],
)
def test_bad_message_names_the_first_bad_place(changed: Message, words: str) -> None:
    with pytest.raises(TraceError, match=words):
        type(changed).decode(changed.encode())


@pytest.mark.parametrize("kind", [ExperimentAsk, Experiment, ExperimentReport])
@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", b"[" * 9999, b'"\xff'])
def test_garbage_is_refused(kind: type[Message], body: bytes) -> None:
    for json in (True, False):
        with pytest.raises(TraceError, match=f"{kind.__name__} is malformed"):
            kind.decode(body, json=json)


def test_oversized_message_is_refused_unread() -> None:
    with pytest.raises(TraceError, match="the limit is"):
        ExperimentReport.decode(b"\0" * (experiment.MAX_MESSAGE_BYTES + 1))


def test_unknown_field_is_refused() -> None:
    fields = msgspec.json.decode(report().encode())
    with pytest.raises(TraceError, match="prompt"):
        ExperimentReport.decode(msgspec.json.encode(fields | {"prompt": "secret"}))
