"""The ledger of the kills finds what a database has lost; a round of the command loses nothing."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _results
from benchmarks.kills import __main__ as kills
from benchmarks.kills.ledger import Ledger
from pod_integrate.devices.registry import device_named, target_of
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from tuner.store import schema

GEOMETRY = Geometry.uniform((4, 2, 64), "fp32", page_size=1)
DEVICE = DeviceKey("test-cpu", "avx512", 2)
CONFIG = target_of(DEVICE).default_config(GEOMETRY)
EVIDENCE = Evidence(
    pairs=40, steps=10, median_speedup=1.25, lower_bound=1.125, confidence=0.95, method="live",
    measured_at="2026-01-02T03:04:05.000Z", build="b", trial=3,
)  # fmt: skip
TABLE = ConfigTable(
    2, GEOMETRY, DEVICE, "b", "now", {Bucket.parse("d8@512"): TableEntry(CONFIG, EVIDENCE)}
)
ROWS: list[tuple[str, tuple[Any, ...]]] = [
    ("INSERT INTO messages VALUES (?, ?)", ("s", 0)),
    ("INSERT INTO trials VALUES (?, ?, ?, ?)", (1, "d8@512", 3, json.dumps(CONFIG.to_dict()))),
    ("INSERT INTO pairs VALUES (?, ?, ?, ?)", (1, "duel", "aaaa", 1)),
    ("INSERT INTO tables VALUES (?, ?)", (2, TABLE.to_json())),
    ("INSERT INTO decisions VALUES (?)", (7,)),
]
OVERVIEW: dict[str, Any] = {
    "decisions": [{"id": 7, "kind": "promote"}],
    "totals": {"records": 16, "messages": 1, "trials": 3, "promotions": 1},
}
NOTED = [
    ["message", "s", 0], ["table", 2, TABLE.checksum], ["pairs", "d8@512", 3, "duel", ["aaaa"]],
]  # fmt: skip


def ledger(folder: Path, *, without: int | None = None, noted: str | None = None) -> Ledger:
    """One over a database that lacks a row of ROWS."""
    base = sqlite3.connect(folder / "tuner.db")
    for made in (
        "messages (server, sequence)", "trials (id, bucket, number, config)",
        "pairs (trial_id, phase, batch, live)", "tables (version, body)", "decisions (id)",
        "holds (kind, config)",
    ):  # fmt: skip
        base.execute(f"CREATE TABLE {made}")
    for i, (text, values) in enumerate(ROWS):
        if i != without:
            base.execute(text, values)
    base.commit()
    base.close()
    journal = folder / "journal"
    journal.write_text("".join(json.dumps(row) + "\n" for row in NOTED) if noted is None else noted)
    found = Ledger(journal, folder / "tuner.db")
    found.see(OVERVIEW)
    return found


def lost(found: Ledger, overview: dict[str, Any] = OVERVIEW) -> dict[str, int]:
    found.check(overview)
    return {kind: count for kind, count in found.lost.items() if count}


def test_the_ledgers_questions_are_those_of_the_real_schema(tmp_path: Path) -> None:
    asked = {
        schema.messages: "server sequence", schema.trials: "id bucket number config",
        schema.pairs: "trial_id phase batch live", schema.tables: "version body",
        schema.decisions: "id", schema.holds: "kind config",
    }  # fmt: skip
    for table, names in asked.items():
        assert set(names.split()) <= set(table.c.keys()), table.name


def test_what_is_all_there_is_not_lost(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    assert lost(found) == {} and found.doubled == 0
    assert found.asked == {"message": 1, "table": 1, "pairs": 1, "decision": 1}


@pytest.mark.parametrize(
    ("without", "kind"), [(0, "messages"), (2, "pairs"), (3, "tables"), (4, "decisions")]
)
def test_a_row_that_is_gone_is_lost(without: int, kind: str, tmp_path: Path) -> None:
    assert lost(ledger(tmp_path, without=without)) == {kind: 1}


def test_totals_that_fall_are_lost(tmp_path: Path) -> None:
    fewer = OVERVIEW | {"totals": OVERVIEW["totals"] | {"records": 9, "messages": 2}}
    assert lost(ledger(tmp_path), fewer) == {"total records": 7}


def test_a_line_that_a_kill_cut_short_was_not_noted(tmp_path: Path) -> None:
    whole = json.dumps(["message", "s", 0]) + "\n"
    assert lost(ledger(tmp_path, noted=whole + '["message", "s", 1')) == {}


def test_pairs_of_a_barred_config_are_no_loss_and_doubles_are_seen(tmp_path: Path) -> None:
    found = ledger(tmp_path, without=2)
    base = sqlite3.connect(tmp_path / "tuner.db")
    base.execute("INSERT INTO holds VALUES ('bar', ?)", (json.dumps(CONFIG.to_dict()),))
    base.executemany(ROWS[2][0], [(1, "screen", "bbbb", 1)] * 2)
    base.commit()
    base.close()
    assert lost(found) == {} and (found.barred, found.doubled) == (1, 1)


def test_a_round_of_the_command_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device_named("cpu").load()
    monkeypatch.setattr(_results, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["kills", "--rounds", "1", "--seed", "8"])
    kills.main()
    document = json.loads((tmp_path / "tuner_kills.json").read_text())
    assert document["killed"] == {"server": 1} and not any(document["lost"].values())
    headlines = json.loads((tmp_path / "headline.json").read_text())
    assert headlines["tuner.kill_lost"]["value"] == 0
    assert "round 1: server, 0 lost" in capsys.readouterr().out
