"""The structures of kernels/walls/request.h, and how large a request's shared memory is."""

from __future__ import annotations

import ctypes

ROW_BYTES = 256
PLACE_ROWS = 16
PLACE_BYTES = PLACE_ROWS * (ROW_BYTES + 16)
MOST_STAGES = 16
# Of cp.async, whose waits are compile-time constants.
COPY_STAGES = 4
# Four places of 64 rows, and weights of 8 query rows.
WIDE_BYTES = 4 * 64 * ROW_BYTES + 8 * 128
# What a CTA of sm_90 may have, less what it has statically: barriers of 16 warps, or a few.
MOST_SMEM = 232_448 - 2_304
MOST_CORUN_SMEM = 232_448 - 1_024
_ALIGNMENT = 1024
QUERY_BYTES = 128 * ROW_BYTES

EVICT_NORMAL, EVICT_FIRST, EVICT_LAST = 0x10 << 56, 0x12F << 52, 0x14F << 52
FILLS = ("none", "boxes", "copies", "rows")


class Stream(ctypes.Structure):
    """Warps that copy rows of a pool; see request.h."""

    _fields_ = [
        ("pool", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("policy", ctypes.c_uint64),
        *((name, ctypes.c_int) for name in "warps stages copies copy_rows panels".split()),
        *((name, ctypes.c_int) for name in "lanes groups shared scatter reserved".split()),
    ]

    @property
    def bytes_in_flight(self) -> int:
        """Of a CTA, when all its places are asked for."""
        copies = self.warps * self.stages * self.copies
        return int(copies * self.copy_rows * ROW_BYTES // (self.panels or 1))


class Corun(ctypes.Structure):
    """The CTA that multiplies beside a decoder; see request.h."""

    _fields_ = [
        ("tiles", ctypes.c_void_p),
        ("tile_rows", ctypes.c_int64),
        ("tile_policy", ctypes.c_uint64),
        *((name, ctypes.c_int) for name in "groups multiply fill ordered".split()),
    ]


class Request(ctypes.Structure):
    """One launch."""

    _fields_ = [
        ("kernel", ctypes.c_int),
        ("ctas", ctypes.c_int),
        ("cycles", ctypes.c_int64),
        ("streams", Stream * 2),
        ("corun", Corun),
        ("records", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    ]


class Record(ctypes.Structure):
    """What a warp leaves."""

    _fields_ = [
        (name, ctypes.c_int64) for name in "begin_ns end_ns begin_clock end_clock units".split()
    ]


def streams_smem(first: Stream, second: Stream) -> int:
    """Dynamic shared memory of a CTA that only copies."""
    return _ALIGNMENT + first.bytes_in_flight + second.bytes_in_flight


def corun_smem(keys: int, stages: int, decoder: Stream, *, wide: bool = False) -> int:
    """Dynamic shared memory of a CTA that multiplies and decodes; `wide`: decode on wgmma."""
    ring = 2 * stages * keys * ROW_BYTES
    places = WIDE_BYTES if wide else decoder.warps * decoder.stages * PLACE_BYTES
    return int(_ALIGNMENT + QUERY_BYTES + ring + places)
