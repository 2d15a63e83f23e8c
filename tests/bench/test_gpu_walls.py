"""The walls part of benchmarks/gpu: its requests, its arithmetic, and that its sources compile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.walls import library as walls_library
from benchmarks.gpu.walls import points, requests, walls
from benchmarks.gpu.walls.points import Point, Pools
from benchmarks.gpu.walls.records import (
    Role,
    clock_ghz,
    ctas,
    least_in_flight,
    merged,
    rate,
    summary,
)
from pod_integrate.builds import nvcc
from pod_integrate.builds.report import is_wgmma_serialized

POOLS = Pools(1 << 40, 1 << 30)
POINTS = [(part, point) for part, make in points.PARTS.items() for point in make(POOLS)]


def smem(point: Point) -> int:
    first, second = point.request.streams
    if point.kernel in points.SHAPES:
        wide = point.kernel in points.WIDE
        return requests.corun_smem(*points.SHAPES[point.kernel], first, wide=wide)
    return requests.streams_smem(first, second)


def test_every_request_fits_an_sm_and_its_barriers() -> None:
    for part, point in POINTS:
        corun = point.kernel in points.SHAPES
        most = requests.MOST_CORUN_SMEM if corun else requests.MOST_SMEM
        assert smem(point) <= most, (part, point.labels)
        for s in point.request.streams:
            assert s.stages <= requests.MOST_STAGES and s.warps <= 8, (part, point.labels)


def test_every_row_of_a_part_has_labels_of_its_own() -> None:
    for part in points.PARTS:
        rows = [tuple(point.labels.items()) for name, point in POINTS if name == part]
        assert len(rows) == len(set(rows)) > 5, part


def test_copies_stay_inside_of_their_pools() -> None:
    for part, point in POINTS:
        for s in (s for s in point.request.streams if s.warps):
            assert s.rows & (s.rows - 1) == 0 and s.rows % s.copy_rows == 0, (part, point.labels)
            assert s.groups * s.rows <= (
                points.HBM_ROWS if s.pool == POOLS.hbm else points.GROUPS * points.GROUP_ROWS
            )
            assert s.copies % s.panels == 0 and s.scatter % 2 == 1


def test_in_flight_is_what_the_row_says() -> None:
    for part, point in POINTS:
        if part == "in_flight":
            assert point.request.streams[0].bytes_in_flight == point.labels["kib"] * 1024


def records(*warps: tuple[int, int, int, int, int]) -> torch.Tensor:
    return torch.tensor([warps], dtype=torch.int64)


def test_a_rate_is_the_sum_over_warps_of_units_over_their_own_time() -> None:
    found = records((0, 100, 0, 150, 7), (0, 50, 0, 100, 7), (0, 0, 0, 0, 0), (0, 10, 0, 10, 9))
    assert rate(found, Role((0, 3), 2.0)) == pytest.approx((7 / 100 + 7 / 50) * 2e9)
    assert rate(found, Role((2, 3), 1.0)) == 0
    assert clock_ghz(found) == 1.5


def test_a_summary_takes_medians_over_launches() -> None:
    launches = [records((0, 10, 0, 20, units)) for units in (1, 100, 3)]
    assert summary(launches, {"x": Role((0, 1), 1.0)}) == {"x": 3e8, "sm_ghz": 2.0, "ctas": 1}


def test_ctas_are_counted_by_whether_a_warp_of_theirs_worked() -> None:
    idle, busy = [(0, 0, 0, 0, 0)] * 2, [(0, 0, 0, 0, 0), (0, 5, 0, 5, 1)]
    assert ctas(torch.tensor([idle, busy, idle, busy], dtype=torch.int64)) == 2


def test_a_row_of_clusters_says_how_many_share() -> None:
    rows = [point for part, point in POINTS if part == "cluster"]
    assert {row.labels["cluster"] for row in rows} == {1, 2, 4}
    for row in rows:
        decodes = row.request.streams[0].warps > 0
        assert ("bytes_s" in row.roles) == decodes == (row.labels["from"] != "-")
        if decodes:
            pool = {"hbm": POOLS.hbm, "l2": POOLS.l2}[row.labels["from"]]
            assert row.request.streams[0].pool == pool


def test_rows_that_came_before_a_launch_failed_are_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(bench: object, part: str) -> Iterator[dict[str, Any]]:
        yield {"kernel": "share1"}
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr(walls, "Bench", lambda *_: None)
    monkeypatch.setattr(walls, "measured", measured)
    with pytest.raises(RuntimeError, match="unspecified"):
        walls.main(["--only", "cluster", "--out", str(tmp_path)])
    saved = json.loads((tmp_path / "walls.json").read_text())
    assert saved["cluster"] == [{"kernel": "share1"}]


def test_enough_in_flight_is_where_the_rate_stays_near_its_best() -> None:
    points_ = [(8.0, 1.0), (16.0, 2.8), (24.0, 2.4), (32.0, 2.9), (48.0, 3.0)]
    assert least_in_flight(points_, 0.9) == 32.0
    assert least_in_flight([], 0.9) is None


def test_a_kind_that_never_comes_near_the_best_has_no_number() -> None:
    rows = [
        {"kind": "bulk", "warps": 1, "kib": 8, "bytes_s": 1.0},
        {"kind": "bulk", "warps": 4, "kib": 8, "bytes_s": 2.0},
        {"kind": "bulk", "warps": 4, "kib": 16, "bytes_s": 4.0},
    ]
    slow, fast = walls.enough_in_flight(rows)
    assert slow["kib"] is None and slow["best_bytes_s"] == 1.0
    assert fast["kib"] == 16


def test_a_line_names_its_units() -> None:
    row = {"kind": "bulk", "copies_s": 2e8, "bytes_s": 3.1e12, "sm_ghz": 1.755}
    assert walls.line(row) == "kind bulk, 200 M copies/s, bytes 3.100 T/s, 1.755 GHz"


def test_the_emulator_is_refused_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        walls.main(["--backend", "emulator"])
    assert "no copy engine" in capsys.readouterr().err


@pytest.fixture(scope="module")
def built() -> Path:
    if not nvcc.is_here():
        pytest.skip("no nvcc")
    return walls_library.build()


def test_structures_are_those_of_the_sources(built: Path) -> None:
    assert walls_library.Library(built).kernels == [
        *("bulk", "boxes", "copies"),
        *points.SHAPES,
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the requests have no real pools")
def test_every_request_gets_as_far_as_the_driver(built: Path) -> None:
    library = walls_library.Library(built)
    for part, point in POINTS:
        error = library.launch(point.kernel, point.request)
        assert re.search("driver|CUDA|cuTensorMap", error), (part, point.labels, error)


def test_measured_kernels_neither_spill_nor_wait_for_the_matrix_unit(built: Path) -> None:
    said = walls_library.compiler_said(built)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", said)]
    assert len(spills) == 18 and not any(spills)
    assert not is_wgmma_serialized(said)
    assert "setmaxnreg" not in said, "ptxas says it ignores it"


def test_a_part_measured_again_takes_the_place_of_the_recorded_one_alone() -> None:
    machine = {"utc": "then", "kernel_build": "a"}
    recorded = {"machine": machine, "cycles": 5, "l2": [1], "wide": [2], "seconds": {"l2": 1.0}}
    again = {"machine": {"utc": "now"}, "cycles": 5, "wide": [3], "seconds": {"wide": 0.5}}
    found = merged(again, recorded)
    assert (found["l2"], found["wide"], found["machine"]) == ([1], [3], machine)
    assert found["seconds"] == {"l2": 1.0, "wide": 0.5}
    assert found["later"]["wide"]["utc"] == "now" and set(found["later"]) == {"wide"}
    # What a trap cut off replaces nothing, and is better than nothing.
    assert merged({**again, "cut": "wide"}, recorded)["wide"] == [2]
    assert merged({**again, "cut": "wide"}, {**recorded, "wide": [4]})["wide"] == [4]
    fresh = {**again, "cluster": [5], "cut": "cluster", "seconds": {}}
    assert merged(fresh, recorded)["cluster"] == [5]
