"""ConfigTable reads back what it wrote, rejects bad JSON whole, and acts in its own buckets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.tables import make_evidence

from pod_integrate.errors import TableError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import MAX_TABLE_BYTES, ConfigTable, TableEntry

TILE = TileConfig(q_rows=64, kv_rows=32)
EVIDENCE = make_evidence("cpu-0123456789", trial=7)


def entry(split: int) -> TableEntry:
    return TableEntry(PodConfig(prefill=TILE, decode=TILE, decode_split_tokens=split), EVIDENCE)


def table(**entries: int) -> ConfigTable:
    return ConfigTable(
        version=3,
        geometry=Geometry.parse("q8kv4d64-fp32-kvfp32-s1-w-1-c0"),
        device=DeviceKey("some-cpu", "avx2", 4),
        build="cpu-0123456789",
        updated="2026-01-02T03:04:05Z",
        entries={Bucket.parse(name): entry(split) for name, split in entries.items()},
    )


FULL = table(**{"p1k@8k+d64@4k": 512, "p256@1k": 256, "d8@2k": 128})


def test_json_reads_back() -> None:
    assert ConfigTable.from_json(FULL.to_json()) == FULL


def test_json_does_not_depend_on_the_order_of_entries() -> None:
    turned = table(**{"d8@2k": 128, "p256@1k": 256, "p1k@8k+d64@4k": 512})
    assert turned.to_json() == FULL.to_json()


def test_a_config_acts_in_the_bucket_that_it_was_proven_in() -> None:
    found = FULL.lookup(Bucket.parse("p1k@8k+d64@4k"))
    assert found.source == "exact"
    assert found.config is not None and found.config.decode_split_tokens == 512


@pytest.mark.parametrize(
    "bucket",
    ["p2k@8k+d64@4k", "p1k@8k+d32@4k", "p1k@8k+d64@8k", "d16@2k", "d8@1k", "p256@2k", "empty"],
)
def test_a_bucket_next_to_a_proven_one_runs_the_default(bucket: str) -> None:
    assert FULL.lookup(Bucket.parse(bucket)) == (None, "default")


def test_an_empty_table_means_defaults() -> None:
    assert table().lookup(Bucket.parse("d8@2k")) == (None, "default")


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FULL.to_json())
    return loaded


Change = Callable[[dict[str, Any]], Any]
CORRUPT: dict[str, tuple[Change, str]] = {
    "schema": (lambda d: d.update(schema=99), "schema 99"),
    "missing field": (lambda d: d.pop("build"), "build"),
    "unknown field": (lambda d: d.update(magic=1), "magic"),
    "geometry": (lambda d: d.update(geometry="square"), "table key: geometry 'square'"),
    "device": (lambda d: d.update(device="toaster"), "table key: device 'toaster'"),
    "version": (lambda d: d.update(version="3"), "version"),
    "bucket": (
        lambda d: d["entries"].update({"p3@8": d["entries"]["d8@2k"]}),
        "entry 'p3@8'",
    ),
    "config value": (
        lambda d: d["entries"]["d8@2k"]["config"].update(ctas_per_sm=99),
        "entry 'd8@2k': config: ctas_per_sm",
    ),
    "config field": (
        lambda d: d["entries"]["d8@2k"]["config"].update(magic=1),
        "entry 'd8@2k': config has unknown fields",
    ),
    "evidence": (lambda d: d["entries"]["d8@2k"].pop("evidence"), "entry 'd8@2k' needs exactly"),
    "evidence value": (
        lambda d: d["entries"]["d8@2k"]["evidence"].update(pairs="many"),
        "entry 'd8@2k'.*pairs",
    ),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_table_is_rejected_whole_and_the_place_named(name: str) -> None:
    change, words = CORRUPT[name]
    broken = document()
    change(broken)
    with pytest.raises(TableError, match=words):
        ConfigTable.from_json(json.dumps(broken).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_anything_but_a_table_is_rejected(data: bytes) -> None:
    with pytest.raises(TableError):
        ConfigTable.from_json(data)


def test_oversized_table_is_rejected_unread() -> None:
    with pytest.raises(TableError, match="the limit is"):
        ConfigTable.from_json(b" " * (MAX_TABLE_BYTES + 1))
