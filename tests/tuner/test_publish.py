"""What is published is what servers take: bounded entries, and never more of them than fit."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa
from support.tables import make_evidence, make_table
from tuner_support import (
    BUILD,
    DEFAULT,
    DEVICE,
    GEOMETRY,
    KEY,
    SCOPE,
    RecordedBench,
    drive,
    kinds,
    message,
    nothing_matters,
    overview,
    record,
    trials,
)

from pod_integrate.errors import ConfigInfeasibleError, TableError
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MAX_DECODE_PARTS, ConfigTable, TableEntry, require_bearable
from tuner.core import Tuner
from tuner.store import schema
from tuner.tables import publish

ENTRY = TableEntry(DEFAULT, make_evidence(BUILD))
FINE = dataclasses.replace(DEFAULT, decode_split_tokens=16)


@pytest.mark.parametrize("bucket", ["d1@64", "d64@4k", "p1k@8k+d256@32k"])
def test_a_table_whose_config_cuts_decodes_too_fine_is_refused(bucket: str) -> None:
    made = make_table(FINE, [Bucket.parse(bucket)], geometry=GEOMETRY, device=DEVICE, build=BUILD)
    active = ActiveTable(GEOMETRY, DEVICE, BUILD)
    with pytest.raises(TableError, match="decode_split_tokens 16"):
        active.offer(made.to_json())
    assert active.version == 0


def test_decode_items_of_a_bucket_are_bounded_and_one_for_each_decode_always_allowed() -> None:
    config = dataclasses.replace(DEFAULT, decode_split_tokens=256)
    require_bearable(Bucket.parse(f"d{MAX_DECODE_PARTS // 128}@32k"), config)
    with pytest.raises(ConfigInfeasibleError, match="decode items"):
        require_bearable(Bucket.parse(f"d{MAX_DECODE_PARTS // 64}@32k"), config)
    require_bearable(Bucket.parse("d64k@256"), config)
    require_bearable(Bucket.parse("d64k@1024k"), dataclasses.replace(config, decode_split_tokens=0))


@pytest.mark.parametrize(
    "entry",
    [
        TableEntry(FINE, make_evidence(BUILD)),
        TableEntry(DEFAULT, make_evidence(BUILD, median_speedup=-1.0)),
        TableEntry(DEFAULT, make_evidence(BUILD, lower_bound=float("nan"))),
        TableEntry(DEFAULT, make_evidence(BUILD, lower_bound=1.101)),
        TableEntry(DEFAULT, make_evidence(BUILD, pairs=1 << 40)),
    ],
)
def test_an_entry_that_servers_would_refuse_is_never_stored(
    tuner: Tuner, entry: TableEntry
) -> None:
    with pytest.raises(TableError), tuner.store.begin() as tx:
        tuner.tables.change(tx, SCOPE, Bucket.parse("d8@2k"), entry, tuner.clock())
    with tuner.store.begin() as tx:
        assert not tx.execute(sa.select(schema.tables)).all()


@pytest.mark.parametrize("limit", [{"MAX_ENTRIES": 2}, {"MAX_TABLE_BYTES": 2500}])
def test_a_full_table_drops_the_bucket_of_least_time_and_says_so(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(publish, name, value)
    times = {"d1@64": 50.0, "d1@128": 10.0, "d1@256": 90.0}
    records = [
        record(i, lengths=([1], [int(name.split("@")[1])]), attention_us=us)
        for i, (name, us) in enumerate(times.items())
    ]
    tuner.ingest(message(records=records))
    for name in times:
        with tuner.store.begin() as tx:
            table = tuner.tables.change(tx, SCOPE, Bucket.parse(name), ENTRY, tuner.clock())
        tuner.tables.commit(SCOPE, table)
    kept = ActiveTable(GEOMETRY, DEVICE, BUILD).offer(tuner.table(SCOPE) or b"")
    assert {str(bucket) for bucket in kept.entries} == {"d1@64", "d1@256"}
    assert kinds(tuner) == ["drop"] and overview(tuner)["totals"]["alerts"] == 1


def test_a_table_that_is_far_too_full_is_written_a_few_times_only(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_ENTRIES", 300)
    monkeypatch.setattr(publish, "MAX_TABLE_BYTES", 100_000)
    chunks, counts, contexts = ([2 << 2 * i for i in range(6)], range(8), range(8))
    sizes = [(c, 1 << n, 64 << k) for c in chunks for n in counts for k in contexts]
    buckets = {Bucket.of([c] + [1] * n, [c + kv] + [kv] * n) for c, n, kv in sizes}
    written: list[ConfigTable] = []

    def to_json(table: ConfigTable, **options: bool) -> bytes:
        written.append(table)
        return write(table, **options)

    write = ConfigTable.to_json
    monkeypatch.setattr(ConfigTable, "to_json", to_json)
    with tuner.store.begin() as tx:
        entries = dict.fromkeys(buckets, ENTRY)
        table = tuner.tables.change_all(tx, SCOPE, {**entries}, tuner.clock())
    assert 100 < len(table.entries) < 300 and len(written) < 6
    with tuner.store.read() as tx:
        dropped = tx.scalar(sa.select(sa.func.count()).select_from(schema.decisions)) or 0
    assert len(table.entries) + dropped == len(entries)


def test_a_config_that_no_table_may_hold_is_never_measured(tuner: Tuner) -> None:
    long = [record(i, lengths=([1] * 4096, [32700 + i] * 4096)) for i in range(1, 17)]
    tuner.ingest(message(records=long))
    bench = RecordedBench(nothing_matters)
    drive(tuner, bench)
    bucket = "d4k@32k"
    found = trials(tuner, KEY._replace(bucket=bucket))["trials"]
    cut = [t for t in found if "decode items" in t["reason"]]
    assert cut and all(t["state"] == "pruned" and not t["pairs"] for t in cut)
    for config in bench.verified[1:]:
        require_bearable(Bucket.parse(bucket), config)
