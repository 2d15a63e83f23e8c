"""What is measured: requests by name, each with the roles of its warps.

Pools are told apart by where they end up: `hbm` is far larger than L2, `l2` fits it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.gpu.walls import requests
from benchmarks.gpu.walls.records import Role
from benchmarks.gpu.walls.requests import (
    COPY_STAGES,
    EVICT_FIRST,
    EVICT_LAST,
    EVICT_NORMAL,
    FILLS,
    MOST_SMEM,
    PLACE_ROWS,
    ROW_BYTES,
    Request,
    Stream,
)

KIB = 1024
HEAD_DIM = 128
# Rows of 256 bytes: 4 GiB, and K and V of 8K keys for each of 8 heads, 32 MiB.
HBM_ROWS, GROUPS, GROUP_ROWS = 1 << 24, 8, 1 << 14
# An odd factor that sends neighbours far apart, whatever power of two it wraps at.
_SCATTER = 2_654_435_761 % (1 << 31) | 1
SHAPES = {"corun128": (128, 2), "corun64": (64, 4)}
# Of those that decode on wgmma: CTAs of a cluster that share K and V, each bringing a part.
WIDE = {"wide128": 1, "share1": 1, "share2": 2, "share4": 4}
SHAPES |= dict.fromkeys(WIDE, (128, 2))


class Pools(NamedTuple):
    """Addresses of [HBM_ROWS, 256 bytes] and [GROUPS * GROUP_ROWS, 256 bytes]."""

    hbm: int
    l2: int


class Point(NamedTuple):
    """One measurement: labels, the kernel and its request, and what its warps are."""

    labels: dict[str, Any]
    kernel: str
    request: Request
    roles: dict[str, Role]


def stream(pools: Pools, source: str, *, warps: int, **options: Any) -> Stream:
    """Warps that read `hbm`, or `l2`, each its own rows."""
    pool, rows = (pools.hbm, HBM_ROWS) if source == "hbm" else (pools.l2, GROUPS * GROUP_ROWS)
    base = {"policy": EVICT_NORMAL, "panels": 1, "lanes": 32, "groups": 1, "scatter": 1}
    return Stream(pool=pool, rows=rows, warps=warps, **{**base, **options})


def tiles_of(pools: Pools, *, warps: int, **options: Any) -> Stream:
    """Warps that read K and V of their CTA's head in order, as all CTAs of the head do."""
    base = {"policy": EVICT_NORMAL, "panels": 1, "lanes": 32, "scatter": 1}
    fixed = {"pool": pools.l2, "rows": GROUP_ROWS, "groups": GROUPS, "shared": 1}
    return Stream(**fixed, warps=warps, **{**base, **options})


def copies(pools: Pools) -> Iterator[Point]:
    """Small copies of scattered rows by kind and size: how many an SM takes per second."""
    kinds = [("bulk", rows, 1) for rows in (1, 4, 16, 64)]
    kinds += [("boxes", 1, 1)] + [("boxes", rows, 2) for rows in (1, 8, 16, 64)]
    for source in ("l2", "hbm"):
        for kernel, rows, panels in kinds:
            for warps, lanes in ((1, 1), (1, 32), (4, 1), (4, 32)):
                options = {"copy_rows": rows, "panels": panels, "lanes": lanes}
                yield _copies(pools, kernel, source, warps, options)
        for warps in (1, 2, 4, 8):
            yield _copies(pools, "copies", source, warps, {"copy_rows": 1, "panels": 1})


def _copies(pools: Pools, kernel: str, source: str, warps: int, options: dict[str, int]) -> Point:
    panels = options["panels"]
    size = options["copy_rows"] * ROW_BYTES // panels
    each = 96 * KIB // warps
    stages = next(s for s in (COPY_STAGES, 2, 1) if each // s >= size * panels)
    number = each // stages // (size * panels) * panels
    sizes = {"stages": stages, "copies": number, "scatter": _SCATTER}
    s = stream(pools, source, warps=warps, **sizes, **options)
    labels = {"kind": kernel, "bytes": size, "from": source, "warps": warps, "lanes": s.lanes}
    # cp.async counts rows, of 16 copies each.
    parts = 16 if kernel == "copies" else 1
    labels["bytes"] = size // parts
    roles = {"copies_s": Role((0, warps), parts), "bytes_s": Role((0, warps), size)}
    return Point(labels, kernel, Request(streams=(s, Stream())), roles)


def in_flight(pools: Pools) -> Iterator[Point]:
    """A stream from HBM with more and more bytes asked for: alone, and with decode's products."""
    for kib in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192):
        for kernel in ("bulk", "copies", "corun64"):
            for warps in (1, 2, 4):
                point = _in_flight(pools, kernel, kib * KIB // warps, warps)
                if point is not None:
                    yield point


def _in_flight(pools: Pools, kernel: str, each: int, warps: int) -> Point | None:
    place = PLACE_ROWS * ROW_BYTES
    stages, rows = each // place, PLACE_ROWS
    if kernel == "copies":
        stages, rows = COPY_STAGES, each // COPY_STAGES // ROW_BYTES
    least = 2 if kernel == "corun64" else 1
    if stages < least or stages > requests.MOST_STAGES or rows < 1:
        return None
    if kernel != "copies" and each % place:
        return None
    s = stream(pools, "hbm", warps=warps, stages=stages, copies=rows, copy_rows=1)
    labels = {"kind": kernel, "warps": warps, "kib": each * warps // KIB}
    if kernel != "corun64":
        role = Role((0, warps), ROW_BYTES)
        return Point(labels, kernel, Request(streams=(s, Stream())), {"bytes_s": role})
    if requests.corun_smem(*SHAPES[kernel], s) > MOST_SMEM:
        return None
    request = Request(streams=(s, Stream()), corun=_corun(pools, multiply=0))
    labels["kind"] = "bulk, products"
    return Point(labels, kernel, request, {"bytes_s": _decode_role(warps)})


def l2(pools: Pools) -> Iterator[Point]:
    """Tiles that all CTAs of a head read out of L2, beside a stream from HBM and without."""
    beside = stream(pools, "hbm", warps=2, stages=6, copies=16, copy_rows=1)
    nothing = Stream()
    kinds = {
        "boxes": tiles_of(pools, warps=1, stages=6, copies=2, copy_rows=64, panels=2),
        "bulk": tiles_of(pools, warps=1, stages=6, copies=1, copy_rows=64),
        "copies": tiles_of(pools, warps=4, stages=COPY_STAGES, copies=24, copy_rows=1),
    }
    for policy in ("normal", "first, last"):
        for kernel, tiles in kinds.items():
            for second in (beside, nothing):
                first, other = _copy(tiles), _copy(second)
                if policy != "normal":
                    first.policy, other.policy = EVICT_LAST, EVICT_FIRST
                size = first.copy_rows * ROW_BYTES // first.panels
                roles = {"l2_bytes_s": Role((0, first.warps), size)}
                if other.warps:
                    places = (first.warps, first.warps + other.warps)
                    roles["hbm_bytes_s"] = Role(places, ROW_BYTES)
                labels = {"kind": kernel, "policy": policy, "beside": bool(other.warps)}
                yield Point(labels, kernel, Request(streams=(first, other)), roles)


def corun(pools: Pools) -> Iterator[Point]:
    """Products as FlashAttention-3 has them, beside decode's and alone, by what fills the ring."""
    for warps, stages in ((1, 12), (2, 6), (4, 3)):
        yield _corun_point(pools, "corun128", warps, stages, multiply=0)
    for kernel in ("corun128", "corun64"):
        for fill in range(len(FILLS)):
            for ordered in (0, 1):
                for warps, stages in ((0, 0), (1, 12), (2, 6), (4, 3)):
                    options = {"fill": fill, "ordered": ordered, "multiply": 1}
                    yield _corun_point(pools, kernel, warps, stages, **options)
    for warps, stages in ((2, 6), (4, 3)):
        options = {"fill": FILLS.index("boxes"), "multiply": 1, "tile_policy": EVICT_LAST}
        yield _corun_point(pools, "corun128", warps, stages, policy=EVICT_FIRST, **options)


def wide(pools: Pools) -> Iterator[Point]:
    """The same with decode on wgmma: keys as rows, packed query rows as columns."""
    yield _corun_point(pools, "wide128", 4, 4, multiply=0)
    for fill in range(len(FILLS)):
        for ordered in (0, 1):
            yield _corun_point(pools, "wide128", 4, 4, fill=fill, ordered=ordered, multiply=1)
    options = {"fill": FILLS.index("boxes"), "multiply": 1, "tile_policy": EVICT_LAST}
    yield _corun_point(pools, "wide128", 4, 4, policy=EVICT_FIRST, **options)


def cluster(pools: Pools) -> Iterator[Point]:
    """CTAs that share K and V, against each its own: alone, beside decode from HBM and from L2."""
    for source in ("hbm", "l2"):
        yield _cluster_point(pools, "share2", "none", source, multiply=0)
    for fill in ("copies", "boxes"):
        for kernel in WIDE:
            for source in ("", "hbm", "l2"):
                yield _cluster_point(pools, kernel, fill, source, multiply=1)
            options = {"multiply": 1, "policy": EVICT_FIRST, "tile_policy": EVICT_LAST}
            yield _cluster_point(pools, kernel, fill, "hbm", **options)


def _cluster_point(pools: Pools, kernel: str, fill: str, source: str, **options: int) -> Point:
    warps = 4 if source else 0
    options |= {"fill": FILLS.index(fill), "ordered": 0, "hot": int(source == "l2")}
    point = _corun_point(pools, kernel, warps, warps, **options)
    labels = {"kernel": kernel, "cluster": WIDE[kernel], **point.labels, "from": source or "-"}
    return point._replace(labels=labels)


def _corun_point(
    pools: Pools,
    kernel: str,
    warps: int,
    stages: int,
    *,
    policy: int = EVICT_NORMAL,
    hot: int = 0,
    **options: int,
) -> Point:
    sizes = {"stages": stages, "copies": PLACE_ROWS, "copy_rows": 1}
    s = stream(pools, "l2" if hot else "hbm", warps=warps, policy=policy, **sizes)
    keys, ring = SHAPES[kernel]
    roles = {}
    if options["multiply"]:
        roles["flops_s"] = Role((4, 12), 4 * 16 * keys * HEAD_DIM)
    if warps:
        roles["bytes_s"] = _decode_role(warps)
    labels = {
        "shape": f"{keys} x {ring}" if options["multiply"] else "-",
        "fill": FILLS[options.get("fill", 0)],
        "ordered": bool(options.get("ordered", 0)),
        "decode": f"{warps} x {stages}",
        "policy": "normal" if policy == EVICT_NORMAL else "first, last",
    }
    request = Request(streams=(s, Stream()), corun=_corun(pools, **options))
    return Point(labels, kernel, request, roles)


def _corun(pools: Pools, **options: int) -> requests.Corun:
    base = {"tile_policy": EVICT_NORMAL, "tile_rows": GROUP_ROWS, "groups": GROUPS}
    return requests.Corun(tiles=pools.l2, **{**base, **options})


def _decode_role(warps: int) -> Role:
    # A step is a place of keys and one of values.
    return Role((12, 12 + warps), 2 * PLACE_ROWS * ROW_BYTES)


def _copy(s: Stream) -> Stream:
    return Stream.from_buffer_copy(s)


PARTS = {"copies": copies, "in_flight": in_flight, "l2": l2, "corun": corun, "wide": wide}
PARTS["cluster"] = cluster  # last: what fails there takes the process's GPU context along
