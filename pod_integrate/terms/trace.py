"""Trace schema: what a server tells the tuner about its steps. Lengths and times only.

On the wire one TraceMessage is one msgpack document (`application/x-msgpack`), arrays instead
of maps; the same structs read JSON objects for people with curl. Bounds are those of wire.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from pod_integrate.errors import PodAttentionError, TraceError
from pod_integrate.terms import wire
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry

WIRE_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
MAX_RECORDS = 2048
MAX_ROWS = 4096

MAX_CONFIGS = 256
_MAX_ERROR = 500

# Of one step's requests.
StepLengths = Annotated[list[wire.Length], msgspec.Meta(max_length=MAX_ROWS)]


class StepRecord(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One sampled forward step; all its layers attended the same lengths.

    time          Unix seconds at the start of the step
    step          the server's step counter
    q_lens, kv_lens   per request, kv_lens with this step's tokens
    step_us       wall time of the whole forward step, 0 when unknown
    attention_us  summed time of the attention op over layers, 0 when unknown
    layers        attention calls in the step
    config        key into TraceMessage.configs of the PodConfig used
    source        `exact`: the table's entry for this bucket; `default`: it has none;
                  `nearest`, of older servers: the entry of a bucket near by
    """

    time: wire.UnixSeconds
    step: wire.StepNumber
    q_lens: StepLengths
    kv_lens: StepLengths
    step_us: wire.Micros
    attention_us: wire.Micros
    layers: wire.Layers
    config: wire.Key
    source: Annotated[str, msgspec.Meta(pattern="^(exact|nearest|default)$")]


class TraceMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch of records from one server for one (geometry, device, build).

    server         stable printable id of the serving process
    sequence       counts this server's messages from 0, so that a re-post is recognised
    seen, dropped  steps since the last message: seen at all, and lost to a full buffer
    table_version  version of the config table in use, 0 for none
    configs        printable config key -> PodConfig as a dict
    """

    version: wire.WireVersion
    server: wire.Key
    sequence: wire.StepNumber
    geometry: wire.Key
    device: wire.Key
    build: wire.Key
    seen: wire.Steps
    dropped: wire.Steps
    table_version: wire.Number
    configs: Annotated[dict[wire.Key, dict[str, Any]], msgspec.Meta(max_length=MAX_CONFIGS)]
    records: Annotated[list[StepRecord], msgspec.Meta(max_length=MAX_RECORDS)]


def encode(message: TraceMessage) -> bytes:
    """Msgpack bytes of a message."""
    return msgspec.msgpack.encode(message)


def decode(body: bytes, *, json: bool = False) -> TraceMessage:
    """Parse and check a posted message; raises TraceError that names the first bad place."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise TraceError(
            f"trace message is {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}; post more often"
        )
    try:
        if json:
            message = msgspec.json.decode(body, type=TraceMessage)
        else:
            message = msgspec.msgpack.decode(body, type=TraceMessage)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        # msgspec lets through what Python raises about a text's bytes and about deep nesting.
        raise TraceError(f"trace message is malformed: {_named(error)}") from error
    _check(message)
    return message


def _named(error: Exception) -> str:
    """An error's text; places inside of records, which msgspec numbers, by their field's name."""
    names = StepRecord.__struct_fields__

    def name(place: re.Match[str]) -> str:
        return f"{place[1]}.{names[int(place[2])]}"

    return re.sub(r"(\$\.records\[\d+\])\[(\d)\]", name, str(error))[:_MAX_ERROR]


def _check(message: TraceMessage) -> None:
    wire.check_version(message.version, WIRE_VERSION, "trace")
    try:
        Geometry.parse(message.geometry), DeviceKey.parse(message.device)
        for config in message.configs.values():
            PodConfig.from_dict(config)
    except PodAttentionError as error:
        raise TraceError(f"trace message: {error}"[:_MAX_ERROR]) from error
    for record in message.records:
        wire.check_lengths(record.q_lens, record.kv_lens, f"step {record.step}")
        if record.config not in message.configs:
            raise TraceError(f"step {record.step}: config {record.config!r} is not in configs")
