"""ActiveTable swaps tables whole and keeps the last good one."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path

import pytest
from support.tables import make_table

from pod_integrate.errors import TableError
from pod_integrate.live import shipped
from pod_integrate.live.registry import ActiveTable, save_file
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

GEOMETRY = Geometry.parse("q8kv4d64-fp32-kvfp32-s1-w-1-c0")
DEVICE = DeviceKey("some-cpu", "avx2", 4)
BUCKET = Bucket.parse("p256@1k+d8@2k")
TILE = TileConfig(q_rows=64, kv_rows=32)


def table(version: int, config: PodConfig | None = None) -> ConfigTable:
    # The split carries the version, so that a reader can tell which table an entry came from.
    config = config or PodConfig(prefill=TILE, decode=TILE, decode_split_tokens=32 * version)
    build = "cpu-0123456789"
    return make_table(
        config, [BUCKET], geometry=GEOMETRY, device=DEVICE, build=build, version=version
    )


@pytest.fixture
def active() -> ActiveTable:
    return ActiveTable(GEOMETRY, DEVICE, "cpu-0123456789")


def test_default_applies_before_any_table(active: ActiveTable) -> None:
    assert active.version == 0
    assert active.lookup(BUCKET) == (None, "default")


def test_offered_table_is_in_use_at_once(active: ActiveTable) -> None:
    active.offer(table(1).to_json())
    assert active.lookup(BUCKET).source == "exact"
    active.offer(table(2).to_json())
    found = active.lookup(BUCKET).config
    assert active.version == 2 and found is not None and found.decode_split_tokens == 64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"geometry": dataclasses.replace(GEOMETRY, page_size=16)}, "is for geometry"),
        ({"device": DeviceKey("other", "avx2", 4)}, "is for device"),
        ({"build": "cpu-ffffffffff"}, "is for build"),
    ],
)
def test_table_of_another_place_is_rejected_and_the_old_one_stays(
    active: ActiveTable, changes: dict[str, object], words: str
) -> None:
    active.offer(table(1).to_json())
    with pytest.raises(TableError, match=words):
        active.offer(dataclasses.replace(table(2), **changes).to_json())  # type: ignore[arg-type]
    assert active.version == 1


def test_table_with_an_infeasible_config_is_rejected_whole(active: ActiveTable) -> None:
    wide = PodConfig(prefill=TileConfig(q_rows=4096, kv_rows=64), decode=TILE)
    with pytest.raises(TableError, match=f"entry '{BUCKET}'".replace("+", r"\+")):
        active.offer(table(1, wide).to_json())
    assert active.version == 0


def test_bad_bytes_leave_the_last_good_table(active: ActiveTable) -> None:
    active.offer(table(1).to_json())
    with pytest.raises(TableError):
        active.offer(b"{")
    assert active.version == 1


def test_saved_file_is_loaded_by_a_later_process(active: ActiveTable, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.json"
    save_file(path, table(4).to_json())
    assert active.load_file(path) == table(4)
    assert list(path.parent.iterdir()) == [path]


def test_missing_or_bad_file_is_logged_and_changes_nothing(
    active: ActiveTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "table.json"
    assert active.load_file(path) is None
    path.write_bytes(b"{")
    assert active.load_file(path) is None
    assert active.version == 0
    assert "no config table at" in caplog.text and "rejected" in caplog.text


def test_readers_see_one_table_or_the_other_never_a_mix(active: ActiveTable) -> None:
    documents = [table(version).to_json() for version in (1, 2)]
    active.offer(documents[0])
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = active.lookup(BUCKET).config
            if found is None or found.decode_split_tokens not in (32, 64):
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        active.offer(documents[i % 2])
    stop.set()
    reader.join()
    assert not wrong


OTHER = Bucket.parse("d8@2k")


def shipped_table(config: PodConfig | None = None) -> ConfigTable:
    chosen = config or PodConfig(prefill=TILE, decode=TILE, decode_split_tokens=4096)
    build = "cpu-0123456789"
    return make_table(chosen, [BUCKET, OTHER], geometry=GEOMETRY, device=DEVICE, build=build)


def splits(active: ActiveTable) -> list[int | None]:
    """In the two buckets of the shipped table; None for the default."""
    found = [active.lookup(bucket).config for bucket in (BUCKET, OTHER)]
    return [None if config is None else config.decode_split_tokens for config in found]


def test_a_shipped_table_acts_where_no_other_has_an_entry(active: ActiveTable) -> None:
    active.ship(shipped_table())
    assert (splits(active), active.shipped, active.version) == ([4096, 4096], 2, 0)
    assert list(active.decode_configs(8)) == [OTHER]
    active.offer(table(1).to_json())
    assert (splits(active), active.shipped, active.version) == ([32, 4096], 1, 1)


def test_a_bucket_that_was_taken_back_runs_the_default(active: ActiveTable) -> None:
    active.ship(shipped_table())
    active.offer(table(1).to_json())
    active.offer(dataclasses.replace(table(2), entries={}).to_json())
    assert splits(active) == [None, 4096]


def test_a_bad_table_takes_no_bucket_from_a_shipped_one(active: ActiveTable) -> None:
    active.ship(shipped_table())
    with pytest.raises(TableError):
        active.offer(dataclasses.replace(table(1), build="cpu-ffffffffff").to_json())
    assert splits(active) == [4096, 4096]


def test_a_shipped_table_of_another_place_or_without_room_is_refused(active: ActiveTable) -> None:
    wide = PodConfig(prefill=TileConfig(q_rows=4096, kv_rows=64), decode=TILE)
    for wrong in (dataclasses.replace(shipped_table(), build="b"), shipped_table(wide)):
        with pytest.raises(TableError):
            active.ship(wrong)
    assert splits(active) == [None, None]


def put(folder: Path, body: bytes) -> None:
    path = shipped.file_of(GEOMETRY, DEVICE, folder)
    path.parent.mkdir(parents=True)
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (shipped_table().to_json(checksum=True), ""),
        (dataclasses.replace(shipped_table(), build="b").to_json(), "measured with kernel b"),
        (shipped_table().to_json(checksum=True).replace(b"1.1,", b"1.2,"), "checksum"),
        (
            dataclasses.replace(shipped_table(), device=DeviceKey("x", "avx2", 4)).to_json(),
            "device",
        ),
    ],
)
def test_a_shipped_file_is_used_by_its_exact_key_or_said_to_be_unused(
    active: ActiveTable,
    tmp_path: Path,
    body: bytes,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    shipped.lay_beneath(active)
    assert (active.shipped, caplog.text) == (0, "")
    put(tmp_path, body)
    shipped.lay_beneath(active)
    assert active.shipped == (0 if words else 2)
    assert words in caplog.text and bool(caplog.text) == bool(words)


def test_every_table_of_the_package_fits_its_device_and_lies_where_it_is_looked_for() -> None:
    for kept in shipped.everything():
        assert shipped.file_of(kept.geometry, kept.device).exists()
        ActiveTable(kept.geometry, kept.device, kept.build).ship(kept)
