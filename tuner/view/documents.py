"""What people and scripts get to see, as types: the one definition of the API's documents.

The OpenAPI document describes them and the page's recorded fixtures are read by them. None stands
for what is not known. A field that ends in `_us` is microseconds, in `_s` seconds, in `_share` a
share from 0 to 1; times of day are ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pod_integrate.terms.config import PodConfig
from tuner.messages import Standing, StepLengths, TrialState
from tuner.store.rows import DecisionKind
from tuner.store.totals import Totals

Status = Literal[
    "promoted", "no worker", "parked", "waiting", "default is best", "tuning", "pinned"
]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every one of them is: immutable, and nothing in it that is not said here."""


class Worker(Document, frozen=True):
    """One measuring worker; `since_s`: since when it measures, or since it was heard of."""

    id: str
    state: Literal["idle", "measuring"]
    device: str
    build: str
    task: str | None
    since_s: float


class TunerState(Document, frozen=True):
    """The tuner itself; `paused`: servers and workers that get nothing to measure, `*` for all."""

    version: str
    started: str
    uptime_s: float
    storage: str
    storage_error: str | None
    archive_error: str | None
    archive_bytes: int
    host_mode: str
    workers: list[Worker]
    paused: list[str]


class Server(Document, frozen=True):
    """One serving process, geometry, device and build. `seen` and `dropped` are steps."""

    server: str
    geometry: str
    device: str
    build: str
    table_version: int
    seen: int
    dropped: int
    records: int
    last_seen_s: float
    hybrid_share: float | None


class Table(Document, frozen=True):
    """A table in force; `entries` are buckets."""

    geometry: str
    device: str
    build: str
    version: int
    updated: str
    entries: int


class Bucket(Document, frozen=True):
    """One bucket of traffic.

    `best_*` and `speedup` are the promoted config's, null before there is one: what screening says
    has no bound. `method` is how that was measured, `pinned` whether a person forbids a change.
    `default_us` and `best_us` are then the times of one pair; before, `default_us` is
    the default's alone.
    """

    geometry: str
    device: str
    build: str
    bucket: str
    hybrid: bool
    steps: int
    time_share: float | None
    attention_us_median: float | None
    status: Status
    default_us: float | None
    best_us: float | None
    speedup: float | None
    lower_bound: float | None
    confidence: float | None
    proven_steps: int | None
    pairs: int
    trials: int
    pruned: int
    default_config: PodConfig | None
    best_config: PodConfig | None
    best_config_short: str | None
    updated_s: float | None
    expected_saving_share: float | None
    least_saving_share: float | None
    pinned: bool
    method: str | None


class Decision(Document, frozen=True):
    """One decision; `speedup` only where something bounds it, `who` only of a person."""

    id: int
    time: str
    kind: DecisionKind
    geometry: str
    device: str
    bucket: str
    config_short: str
    reason: str
    pairs: int
    steps: int
    speedup: float | None
    lower_bound: float | None
    who: str


class Point(Document, frozen=True):
    """One point of the time series, see tables/history.py."""

    time: str
    records: int
    trials: int
    promotions: int
    attention_us_default: float | None
    attention_us_tuned: float | None


class Overview(Document, frozen=True):
    """GET /v1/overview: everything the page shows at first.

    `buckets` are the heaviest of `bucket_count`.
    """

    tuner: TunerState
    servers: list[Server]
    totals: Totals
    tables: list[Table]
    bucket_count: int
    buckets: list[Bucket]
    decisions: list[Decision]
    history: list[Point]


class Trial(Document, frozen=True):
    """One trial: confirmation pairs where there are any, else screening.

    `low` and `high` are the slowest and the fastest of its steps; where they are null, because
    there are fewer than two steps, so are the speed-up and the times, which are those of one pair.
    """

    number: int
    state: TrialState
    config: PodConfig
    config_short: str
    median_us: float | None
    default_us: float | None
    speedup: float | None
    low: float | None
    high: float | None
    lower_bound: float | None
    pairs: int
    steps: int
    reason: str
    time: str


class Trials(Document, frozen=True):
    """GET /v1/trials: every trial of one study and the number of the promoted one."""

    trials: list[Trial]
    promoted: int | None


class SampledBucket(Document, frozen=True):
    """Lengths of some steps of one bucket."""

    bucket: str
    time_share: float
    samples: list[StepLengths]


class Samples(Document, frozen=True):
    """GET /v1/samples: traced lengths of a scope's heaviest buckets."""

    buckets: list[SampledBucket]


class Taken(Document, frozen=True):
    """POST /v1/traces: records taken, 0 with `duplicate` when they had been taken before."""

    accepted: int
    duplicate: bool


class Noted(Document, frozen=True):
    """POST /v1/experiments/{id}/report: `done` when no more pairs of it are wanted."""

    taken: bool
    done: bool


class Obeyed(Document, frozen=True):
    """What an order did."""

    done: str


class Judged(Document, frozen=True):
    """POST /v1/recheck."""

    verdict: Standing


class Health(Document, frozen=True):
    """GET /healthz."""

    status: Literal["ok"]
    version: str


class Failure(Document, frozen=True):
    """Every answer other than success."""

    error: str
