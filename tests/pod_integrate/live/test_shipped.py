"""Tables that come with the package: a process starts with them, and people can look at them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.command import said
from support.tables import make_table

from pod_integrate.builds import nvcc
from pod_integrate.cli import doctor
from pod_integrate.cli.findings import Finding
from pod_integrate.devices.registry import device_named
from pod_integrate.live import shipped
from pod_integrate.live.groups import LayerGroups
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

CPU = device_named("cpu")
GEOMETRY = Geometry.parse("q8kv4d64-fp32-kvfp32-s1-w-1-c0")
LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
H200 = DeviceKey("nvidia-h200", "sm90", 132)
BUCKET = Bucket.parse("p256@1k+d8@2k")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, in the place of the real one's tables; no setting is set."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for name in ("TUNER_URL", "TABLE", "SHIPPED_TABLES"):
        monkeypatch.delenv(f"POD_ATTN_{name}", raising=False)
    return tmp_path


def put(
    geometry: Geometry, device: DeviceKey, build: str, config: PodConfig | None = None
) -> ConfigTable:
    chosen = CPU.default_config(GEOMETRY) if config is None else config
    table = make_table(chosen, [BUCKET], geometry=geometry, device=device, build=build)
    path = shipped.file_of(geometry, device)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(table.to_json(checksum=True))
    return table


def test_tables_of_the_package_count_for_its_kernel() -> None:
    builds = {table.build for table in shipped.everything()}
    remedy = "carry them (benchmarks/carry_tables.py) or measure again (benchmarks.gpu tables)"
    assert builds == {nvcc.build_id()}, f"nobody would be served these tables: {remedy}"


@pytest.mark.parametrize(
    ("value", "invariant", "buckets"), [("", False, 1), ("0", False, 0), ("1", True, 0)]
)
def test_a_process_without_a_tuner_starts_with_them_unless_they_are_off(
    value: str,
    invariant: bool,
    buckets: int,
    package: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(GEOMETRY, CPU.key, CPU.kernel_build)
    monkeypatch.setenv("POD_ATTN_SHIPPED_TABLES", value)
    with caplog.at_level(logging.INFO):
        groups = LayerGroups(CPU, server="test", reports=True, batch_invariant=invariant)
        group = groups.get(GEOMETRY)
    assert group.active.shipped == buckets and f"{buckets} shipped buckets" in caplog.text
    assert bool(group.active.lookup(BUCKET).config) is bool(buckets)
    # What prepares configs runs where there are any, and only there.
    assert (groups._laboratory is not None) is bool(buckets)
    groups.close()


def shipped_finding() -> Finding:
    return next(f for f in doctor.examine() if f.name == "shipped tables")


def test_doctor_says_what_comes_tuned_and_what_is_of_another_build(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(LLAMA, H200, nvcc.build_id())
    assert shipped_finding().value == f"for {H200}; no GPU here"
    monkeypatch.setattr(doctor, "_gpu_keys", lambda: [H200, H200])
    found = shipped_finding()
    assert (found.value, found.status) == (f"{H200}: 1 geometries, 1 buckets", "ok")
    put(LLAMA, H200, "cuda-0123456789")
    found = shipped_finding()
    assert "1 not used, measured with cuda-0123456789" in found.value and found.status == "note"
    monkeypatch.setenv("POD_ATTN_SHIPPED_TABLES", "0")
    assert "off" in shipped_finding().value


def test_one_is_shown_and_exported_by_its_key(
    package: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no table yet" in said(capsys, "table", "show", "shipped")[1]
    table = put(LLAMA, H200, "cuda-0123456789")
    code, text = said(capsys, "table", "show", "shipped", "--geometry", "q32kv8d128")
    assert code == 0 and str(BUCKET) in text and table.build in text
    capped = Geometry.uniform((32, 8, 128), "bf16", page_size=1, logit_cap=50.0)
    put(capped, H200, "cuda-0123456789")
    code, text = said(capsys, "table", "show", "shipped")
    assert code == 2 and "several tables" in text and str(capped) in text
    file = tmp_path_factory.mktemp("out") / "table.json"
    # The key of the one without a cap is the start of the other's.
    assert str(capped).startswith(str(LLAMA).removesuffix("0"))
    assert said(capsys, "table", "export", "shipped", str(file), "--geometry", str(LLAMA))[0] == 0
    assert ConfigTable.from_json(file.read_bytes()) == table
