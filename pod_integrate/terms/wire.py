"""Bounds of what another process can send: every number has two ends, every text a length.

What lies beyond is refused with the field's name and the limit. The ends are far from what servers
do and far inside of what SQLite, PostgreSQL and Arrow store, sums of messages included.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pod_integrate.errors import TraceError

MAX_INT32 = (1 << 31) - 1
# Seconds of the year 9999, the last that ISO 8601 and datetime have.
MAX_UNIX_SECONDS = 253_402_300_799.0
MAX_STEPS = 1 << 32
MAX_STEP_NUMBER = 1 << 48
MAX_LENGTH = 1 << 24
MAX_MICROS = 1e10
MIN_TIMED_MICROS = 1e-3
MAX_LAYERS = 4096
# Printable ASCII: PostgreSQL refuses a NUL, logs and pages would show the others as something else.
KEY_PATTERN = "^[ -~]+$"
MAX_KEY = 128

Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY, pattern=KEY_PATTERN)]
WireVersion = Annotated[int, Meta(ge=0, le=1 << 16)]
# Columns of 32 bits in PostgreSQL.
Number = Annotated[int, Meta(ge=0, le=MAX_INT32)]
# Counts up by one for as long as a process lives.
StepNumber = Annotated[int, Meta(ge=0, le=MAX_STEP_NUMBER)]
# Steps of one message: a year of them at 130 a second.
Steps = Annotated[int, Meta(ge=0, le=MAX_STEPS)]
UnixSeconds = Annotated[float, Meta(ge=0.0, le=MAX_UNIX_SECONDS)]
Length = Annotated[int, Meta(ge=0, le=MAX_LENGTH)]
Layers = Annotated[int, Meta(ge=0, le=MAX_LAYERS)]
# Of one step; 0 stands for unknown.
Micros = Annotated[float, Meta(ge=0.0, le=MAX_MICROS)]
# Of one timed call.
TimedMicros = Annotated[float, Meta(ge=MIN_TIMED_MICROS, le=MAX_MICROS)]
Speedup = Annotated[float, Meta(ge=1e-3, le=1e3)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


def check_version(version: int, known: int, what: str) -> None:
    """Raise TraceError unless a message is of the version that this release knows."""
    if version != known:
        raise TraceError(
            f"{what} version {version} is unknown, this release reads {known}; upgrade the older "
            "side"
        )


def check_lengths(q_lens: list[int], kv_lens: list[int], place: str) -> None:
    """Raise TraceError unless each request of a step has both lengths, kv_len with its tokens."""
    if len(q_lens) != len(kv_lens):
        raise TraceError(f"{place}: {len(q_lens)} q_lens but {len(kv_lens)} kv_lens")
    if any(q > kv for q, kv in zip(q_lens, kv_lens, strict=True)):
        raise TraceError(f"{place}: a kv_len is smaller than its q_len")
