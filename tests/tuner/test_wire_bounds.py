"""Every number that another process can send has two ends, and what lies beyond is refused.

The cases come from the types themselves: a field that is added without bounds fails here.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from api_support import KEYS, Served, post
from support.tables import make_table
from tuner_support import (
    DEFAULT,
    KEY,
    STEPS,
    WORKER,
    RecordedBench,
    drive,
    kinds,
    message,
    split_matters,
    trials,
)
from wire_schema import Path, beyond, numbers_of, placed, plain

from pod_integrate.errors import ConfigError, ShapeError, TableError, TraceError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.keys import GEOMETRY_LIMITS, MAX_BUCKET_NUMBER, Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, _Document
from pod_integrate.terms.trace import StepRecord, TraceMessage, decode, encode
from tuner.core import Tuner
from tuner.messages import Pair, RecheckPairs, Report, Task
from tuner.store import schema

EXPERIMENT_TYPES = (ExperimentAsk, Experiment, ExperimentReport)
WIRE_TYPES = (TraceMessage, _Document, Evidence, Report, RecheckPairs, *EXPERIMENT_TYPES)
TRACE_NUMBERS = numbers_of(TraceMessage)
EVIDENCE_NUMBERS = numbers_of(Evidence)
BUCKET = "p128@256+d4@256"


def cases(found: list[tuple[Path, Any]]) -> list[Any]:
    return [
        pytest.param(path, value, id=f"{'.'.join(map(str, path))}={value}")
        for path, number in found
        for value in beyond(number)
    ]


def table_document() -> dict[str, Any]:
    scope: dict[str, Any] = {
        "geometry": Geometry.parse(KEY.geometry),
        "device": DeviceKey.parse(KEY.device),
    }
    made = make_table(DEFAULT, [Bucket.parse(BUCKET)], build=KEY.build, **scope)
    document: dict[str, Any] = json.loads(made.to_json())
    return document


@pytest.mark.parametrize("wire_type", WIRE_TYPES)
def test_every_number_of_the_wire_has_two_ends_inside_of_what_is_stored(wire_type: Any) -> None:
    found = numbers_of(wire_type)
    assert found
    for path, number in found:
        assert number.ge is not None and number.le is not None, path
        assert -(1 << 53) <= number.ge <= number.le <= 1 << 53, path


def test_a_posted_number_beyond_its_bound_is_a_4xx_that_names_it_and_nothing_is_stored(
    served: Served, client: httpx.Client
) -> None:
    document = plain(message())
    for path, number in TRACE_NUMBERS:
        names = StepRecord.__struct_fields__
        name = names[path[2]] if path[0] == "records" else path[0]  # type: ignore[index]
        for value in beyond(number):
            answer = post(client, msgspec.msgpack.encode(placed(document, path, value)))
            said = answer.json()["error"]
            assert answer.status_code == 400 and str(name) in said, (path, value)
            assert "<=" in said or ">=" in said, (path, value, said)
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200
    totals = client.get("/v1/overview").json()["totals"]
    assert totals["messages"] == totals["records"] == 0
    assert served.tuner.archive.rotate(now=served.tuner.clock(), force=True) is None


@pytest.mark.parametrize(("path", "value"), cases(TRACE_NUMBERS))
def test_a_json_number_beyond_its_bound_is_refused_like_msgpack(path: Path, value: Any) -> None:
    body = json.dumps(placed(plain(message()), path, value)).encode()
    with pytest.raises(TraceError, match="malformed"):
        decode(body, json=True)


def test_a_message_at_all_its_bounds_is_taken_again_and_again(
    served: Served, client: httpx.Client
) -> None:
    document = plain(message())
    for path, number in TRACE_NUMBERS:
        if path != ("version",) and path[-2:] not in [(2, 0), (3, 0)]:
            document = placed(document, path, number.le)
    for sequence in range(3):
        answer = post(client, msgspec.msgpack.encode(document | {"sequence": sequence}))
        assert answer.json() == {"accepted": STEPS, "duplicate": False}
    for url in ("/healthz", "/metrics", "/v1/overview"):
        assert client.get(url).status_code == 200
    assert served.tuner.archive.rotate(now=served.tuner.clock(), force=True) is not None


def test_counters_that_an_older_release_let_overflow_do_not_stop_anything(
    served: Served, client: httpx.Client
) -> None:
    post(client, encode(message()))
    post(client, encode(message(server="server-2")))
    with served.tuner.store.begin() as tx:
        tx.execute(sa.update(schema.servers).values(seen=(1 << 63) - 1, records=1 << 62))
    assert post(client, encode(message(1))).status_code == 202
    for url in ("/healthz", "/metrics", "/v1/overview"):
        assert client.get(url).status_code == 200


GARBAGE = {
    "a key that is no UTF-8": b"\x81\xa2\xff\xfe\x01",
    "a text that is no UTF-8": encode(message()).replace(b"server-1", b"server-\xff"),
    "a config key that is no UTF-8": encode(message()).replace(b"\xa7default", b"\xa7defaul\xff"),
    "a config field that is no UTF-8": encode(message()).replace(b"ctas_per_sm", b"ctas_per_s\xff"),
    "nested without end": encode(message()).replace(
        b"\xabctas_per_sm\x02", b"\xa1x" + b"\x91" * 9999
    ),
    "an array longer than the message": b"\x81\xa7records\xdd\xff\xff\xff\xff",
    "an extension": encode(message()).replace(b"\xa4seen\x40", b"\xa4seen\xd4\x01\x00"),
    "a map as key": b"\x81\xa7configs\x81\xa1a\x81\x81\xa1a\x01\x01",
    "a reserved byte": b"\xc1",
    "cut short": encode(message())[:-3],
    "more than one document": encode(message()) * 2,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_bytes_that_are_no_message_are_a_400(name: str, client: httpx.Client) -> None:
    assert GARBAGE[name] != encode(message())
    for kind in ("application/x-msgpack", "application/json"):
        answer = post(client, GARBAGE[name], **{"Content-Type": kind})
        assert answer.status_code == 400 and len(answer.content) < 2000
    assert client.get("/v1/overview").json()["totals"]["messages"] == 0


@pytest.mark.parametrize(("path", "value"), cases(EVIDENCE_NUMBERS))
def test_a_table_with_evidence_beyond_its_bounds_is_refused(path: Path, value: Any) -> None:
    broken = placed(table_document(), ("entries", BUCKET, "evidence", *path), value)
    with pytest.raises(TableError):
        ConfigTable.from_json(json.dumps(broken).encode())


@pytest.mark.parametrize(("path", "value"), cases(numbers_of(_Document)))
def test_a_table_with_a_number_beyond_its_bounds_is_refused(path: Path, value: Any) -> None:
    with pytest.raises(TableError):
        ConfigTable.from_json(json.dumps(placed(table_document(), path, value)).encode())


@pytest.mark.parametrize("value", [-(1 << 63), -1, 1 << 31, 1 << 62, 1 << 63, float("nan")])
def test_every_number_of_a_config_has_bounds(value: float) -> None:
    plain_config = DEFAULT.to_dict()
    for field in dataclasses.fields(PodConfig):
        if field.name in ("prefill", "decode"):
            paths: list[Path] = [(field.name, tile.name) for tile in dataclasses.fields(TileConfig)]
        else:
            paths = [(field.name,)] if field.name != "strategy" else []
        for path in paths:
            with pytest.raises(ConfigError):
                PodConfig.from_dict(placed(plain_config, path, value))


@pytest.mark.parametrize("group", GEOMETRY_LIMITS)
def test_every_number_of_a_geometry_has_bounds(group: str) -> None:
    parts = {"hq": "8", "hkv": "4", "dim": "64", "page": "1", "window": "-1", "cap": "0"}
    form = "q{hq}kv{hkv}d{dim}-fp32-kvfp32-s{page}-w{window}-c{cap}"
    low, high = GEOMETRY_LIMITS[group]
    for good in (low, high):
        assert Geometry.parse(form.format(**parts | {group: str(good)}))
    for bad in (low - 1, high + 1, 1 << 62, 1 << 63, 10**60):
        with pytest.raises(ShapeError):
            Geometry.parse(form.format(**parts | {group: str(bad)}))
    with pytest.raises(ShapeError):
        Geometry.parse(form.format(**parts | {group: "\u0661"}))


def test_every_number_of_a_bucket_and_of_a_device_has_bounds() -> None:
    assert Bucket.parse(f"d{MAX_BUCKET_NUMBER >> 10}k@1")
    for form in ("p{0}@1", "p1@{0}", "d{0}@1", "d1@{0}"):
        for number in (1 << 41, 1 << 62, 1 << 63, 1 << 200):
            with pytest.raises(ShapeError):
                Bucket.parse(form.format(f"{number >> 10}k"))
    for units in ("0", "-1", "10000", str(1 << 63), "\u0661"):
        with pytest.raises(ShapeError):
            DeviceKey.parse(f"some-cpu:avx2:{units}")


@pytest.mark.parametrize("key", ["", "x" * 129, "a\0b", "a\nb", "caf\u00e9"])
@pytest.mark.parametrize("name", ["geometry", "device", "build", "bucket"])
def test_a_query_parameter_that_no_key_can_be_is_a_400_that_names_it(
    client: httpx.Client, name: str, key: str
) -> None:
    answer = client.get("/v1/trials", params=KEYS | {"bucket": BUCKET} | {name: key})
    assert answer.status_code == 400 and answer.json()["error"].startswith(name)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e308])
def test_a_report_with_a_time_beyond_its_bounds_is_filed_as_failed(
    tuner: Tuner, value: float
) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters), tasks=1)
    task = tuner.next_task(WORKER)
    assert isinstance(task, Task)
    pairs = [Pair(1000.0, 500.0, "a"), Pair(1000.0, value, "b")]
    assert tuner.report(Report(task=task.id, worker="w0", outcome="measured", pairs=pairs))
    trial = trials(tuner, KEY)["trials"][task.number]
    assert trial["state"] == "pruned" and "malformed" in trial["reason"] and trial["pairs"] == 0
    assert kinds(tuner)[-1] == "prune"
