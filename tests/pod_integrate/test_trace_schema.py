"""Trace messages read back, and malformed, oversized or unknown ones are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pod_integrate.errors import TraceError
from pod_integrate.terms import trace
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.trace import StepRecord, TraceMessage

TILE = TileConfig(q_rows=64, kv_rows=32)
CONFIG = PodConfig(prefill=TILE, decode=TILE)


def record(**changes: Any) -> StepRecord:
    fields: dict[str, Any] = {
        "time": 1.5,
        "step": 3,
        "q_lens": [16, 1],
        "kv_lens": [16, 90],
        "step_us": 900.0,
        "attention_us": 100.0,
        "layers": 8,
        "config": "default",
        "source": "default",
    }
    return StepRecord(**(fields | changes))


def message(**changes: Any) -> TraceMessage:
    fields: dict[str, Any] = {
        "version": trace.WIRE_VERSION,
        "server": "server-1",
        "sequence": 0,
        "geometry": "q8kv4d64-fp32-kvfp32-s1-w-1-c0",
        "device": "some-cpu:avx2:4",
        "build": "cpu-0123456789",
        "seen": 10,
        "dropped": 0,
        "table_version": 0,
        "configs": {"default": CONFIG.to_dict()},
        "records": [record()],
    }
    return TraceMessage(**(fields | changes))


def test_msgpack_and_json_read_back() -> None:
    assert trace.decode(trace.encode(message())) == message()
    assert trace.decode(msgspec.json.encode(message()), json=True) == message()


def test_wire_form_has_no_field_names_per_record() -> None:
    assert b"attention_us" not in trace.encode(message())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (message(version=99), "trace version 99 is unknown"),
        (message(geometry="square"), "geometry"),
        (message(device="toaster"), "device"),
        (message(configs={"default": {"prefill": 1}}), "config"),
        (message(configs={}), "config 'default' is not in configs"),
        (message(records=[record(kv_lens=[16])]), "step 3: 2 q_lens but 1 kv_lens"),
        (message(records=[record(kv_lens=[15, 90])]), "step 3: a kv_len is smaller"),
        (message(records=[record(q_lens=[-1, 1])]), "malformed"),
        (message(records=[record(step_us=-1.0)]), "malformed"),
        (message(records=[record(step_us=float("nan"))]), "malformed"),
        (message(records=[record(source="luck")]), "malformed"),
        (message(server=""), "malformed"),
        (message(sequence=-1), "malformed"),
        (message(records=[record()] * (trace.MAX_RECORDS + 1)), "malformed"),
        (message(records=[record(q_lens=[1] * (trace.MAX_ROWS + 1))]), "malformed"),
    ],
)
def test_bad_message_names_the_first_bad_place(changed: TraceMessage, words: str) -> None:
    with pytest.raises(TraceError, match=words):
        trace.decode(trace.encode(changed))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", trace.encode(message())[:-3]])
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(TraceError, match="malformed"):
        trace.decode(body)


def test_oversized_message_is_refused_unread() -> None:
    with pytest.raises(TraceError, match="the limit is"):
        trace.decode(b"\0" * (trace.MAX_MESSAGE_BYTES + 1))


def test_unknown_field_is_refused() -> None:
    fields = msgspec.json.decode(msgspec.json.encode(message()))
    body = msgspec.json.encode(fields | {"prompt": "secret"})
    with pytest.raises(TraceError, match="prompt"):
        trace.decode(body, json=True)
