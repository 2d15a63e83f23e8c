"""The file that a process keeps its table in: whose it is, and what it may be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tables import make_table

from pod_integrate.devices.registry import device_named
from pod_integrate.live.groups import LayerGroups
from pod_integrate.live.registry import save_file
from pod_integrate.terms.keys import Bucket, Geometry

CPU = device_named("cpu")
GEOMETRY = Geometry.parse("q8kv4d64-fp32-kvfp32-s1-w-1-c0")
WINDOW = dataclasses.replace(GEOMETRY, window_left=7)
BUCKET = Bucket.parse("p256@1k+d8@2k")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TUNER_URL", "SHIPPED_TABLES"):
        monkeypatch.delenv(f"POD_ATTN_{name}", raising=False)
    monkeypatch.setenv("POD_ATTN_TABLE", str(tmp_path / "table.json"))
    return tmp_path / "table.json"


@pytest.fixture
def groups(file: Path) -> Iterator[LayerGroups]:
    made = LayerGroups(CPU, server="test", reports=True)
    yield made
    made.close()


def put(path: Path, geometry: Geometry, version: int) -> None:
    config = CPU.default_config(geometry)
    table = make_table(config, [BUCKET], geometry=geometry, device=CPU.key, build=CPU.kernel_build)
    save_file(path, dataclasses.replace(table, version=version).to_json())


def test_a_file_is_of_the_geometry_that_it_has_a_table_of(groups: LayerGroups, file: Path) -> None:
    put(file, GEOMETRY, 3)
    beside = file.with_name(f"table.{WINDOW}.json")
    assert groups._table_file(WINDOW) == beside
    put(beside, WINDOW, 5)
    # Whichever group is made first, of this model or of another process's.
    assert [groups.get(each).active.version for each in (WINDOW, GEOMETRY)] == [5, 3]


def test_a_file_without_a_table_is_the_first_groups(groups: LayerGroups, file: Path) -> None:
    file.write_bytes(b"\x00garbage")
    assert groups._table_file(GEOMETRY) == file
    groups.get(GEOMETRY)
    assert groups._table_file(WINDOW) == file.with_name(f"table.{WINDOW}.json")


@pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_regular_file_costs_a_line_in_the_log(
    kind: str, groups: LayerGroups, file: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(kind)
    assert groups.get(GEOMETRY).active.version == 0
    assert f"{file} is no regular file" in caplog.text
