"""`pod-attn doctor` reads the file of POD_ATTN_TABLE as a server does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.tables import make_table

from pod_integrate.cli import doctor
from pod_integrate.cli.findings import Finding
from pod_integrate.devices.registry import device_named
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

CPU = device_named("cpu")
GEOMETRY = Geometry.parse("q8kv4d64-fp32-kvfp32-s1-w-1-c0")
OTHER = DeviceKey("other", "avx2", 2)
TABLE = make_table(
    CPU.default_config(GEOMETRY),
    [Bucket.parse("p256@1k+d8@2k")],
    geometry=GEOMETRY,
    device=CPU.key,
    build=CPU.kernel_build,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What POD_ATTN_TABLE names; nothing lies there yet."""
    monkeypatch.setenv("POD_ATTN_TABLE", str(tmp_path / "table.json"))
    return tmp_path / "table.json"


def finding() -> Finding:
    return next(f for f in doctor.examine() if f.name == "saved table")


def test_a_table_that_a_server_here_takes_is_well(path: Path) -> None:
    path.write_bytes(TABLE.to_json())
    found = finding()
    assert found.status == "ok" and not found.remedy
    assert f"version 3, 1 buckets of {GEOMETRY}" in found.value and str(path) in found.value


def test_no_file_yet_is_a_note_and_no_setting_is_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finding()
    assert (found.value, found.status) == (f"none at {path} yet", "note") and found.remedy
    monkeypatch.delenv("POD_ATTN_TABLE")
    assert finding().status == "ok"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (TABLE.to_json().replace(b'"schema": ', b'"schema": 9'), "has schema"),
    ],
    ids=["cut short", "empty", "other schema"],
)
def test_a_malformed_table_is_missing(path: Path, data: bytes, said: str) -> None:
    path.write_bytes(data)
    found = finding()
    assert found.status == "missing" and said in found.value and str(path) in found.value
    assert "POD_ATTN_TABLE" in found.remedy


@pytest.mark.parametrize("other", [{"build": "cpu-0123456789"}, {"device": OTHER}], ids=str)
def test_a_table_of_another_build_or_device_is_a_note_that_says_it_is_not_used(
    path: Path, other: dict[str, Any]
) -> None:
    path.write_bytes(dataclasses.replace(TABLE, **other).to_json())
    found = finding()
    (name, value) = next(iter(other.items()))
    assert found.status == "note" and f"table is for {name} {value}, this" in found.value
    assert "not used" in found.remedy


def test_a_table_that_is_no_file_is_missing(path: Path) -> None:
    path.mkdir()
    found = finding()
    assert found.status == "missing" and "no regular file" in found.value
