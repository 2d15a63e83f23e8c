"""What was acknowledged, and what a tuner's database has of it after a kill."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import ConfigTable

_TOTALS = ("records", "messages", "trials", "promotions")


@dataclasses.dataclass
class Ledger:
    """Everything that the tuner has said yes to, over all lives of all processes.

    lost     what the database has not, by kind
    doubled  live pairs that are there more than once
    barred   pairs of configs that were barred since, which are not asked for
    """

    journal: Path
    database: Path
    lost: Counter[str] = dataclasses.field(default_factory=Counter)
    doubled: int = 0
    barred: int = 0
    asked: Counter[str] = dataclasses.field(default_factory=Counter)
    _decisions: dict[int, str] = dataclasses.field(default_factory=dict)
    _totals: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def noted_bytes(self) -> int:
        """Length of the journal: grows with what is acknowledged."""
        return self.journal.stat().st_size if self.journal.exists() else 0

    def see(self, overview: dict[str, Any]) -> None:
        """The tuner has answered with this."""
        self._decisions |= {row["id"]: row["kind"] for row in overview["decisions"]}
        self._totals = {name: overview["totals"][name] for name in _TOTALS}

    def check(self, overview: dict[str, Any]) -> None:
        """Count what is missing; `overview` is the first answer of the restarted tuner."""
        for name, before in self._totals.items():
            self.lost[f"total {name}"] += max(0, before - overview["totals"][name])
        base = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30.0)
        try:
            self._check(base)
        finally:
            base.close()

    def _check(self, base: sqlite3.Connection) -> None:
        noted = self._noted()
        self.asked = Counter({kind: len(rows) for kind, rows in noted.items()})
        messages = set(base.execute("SELECT server, sequence FROM messages"))
        self.lost["messages"] = sum(tuple(row) not in messages for row in noted["message"])
        self._tables(base, noted["table"])
        self._pairs(base, noted["pairs"])
        decisions = {row[0] for row in base.execute("SELECT id FROM decisions")}
        self.asked["decision"] = len(self._decisions)
        self.lost["decisions"] = sum(one not in decisions for one in self._decisions)

    def _noted(self) -> dict[str, list[list[Any]]]:
        noted: dict[str, list[list[Any]]] = {"message": [], "table": [], "pairs": []}
        text = self.journal.read_text() if self.journal.exists() else ""
        # A line that a kill cut short was not finished by anybody.
        for line in text.splitlines(keepends=True):
            if line.endswith("]\n"):
                kind, *values = json.loads(line)
                noted[kind].append(values)
        return noted

    def _tables(self, base: sqlite3.Connection, noted: list[list[Any]]) -> None:
        stored = {
            (version, ConfigTable.from_json(body).checksum)
            for version, body in base.execute("SELECT version, body FROM tables")
        }
        self.lost["tables"] = sum(tuple(row) not in stored for row in noted)

    def _pairs(self, base: sqlite3.Connection, noted: list[list[Any]]) -> None:
        held = Counter(base.execute(
            "SELECT t.bucket, t.number, p.phase, p.batch FROM pairs p JOIN trials t "
            "ON t.id = p.trial_id WHERE p.live"
        ))  # fmt: skip
        self.doubled = sum(count - 1 for count in held.values())
        bars = {
            PodConfig.from_dict(msgspec.json.decode(text))
            for (text,) in base.execute("SELECT config FROM holds WHERE kind = 'bar'")
        }
        configs = {
            (bucket, number): PodConfig.from_dict(msgspec.json.decode(text))
            for bucket, number, text in base.execute("SELECT bucket, number, config FROM trials")
        }
        self.barred = lost = 0
        for bucket, number, phase, digests in noted:
            missing = sum((bucket, number, phase, digest) not in held for digest in digests)
            if configs.get((bucket, number)) in bars:
                self.barred += missing
            else:
                lost += missing
        self.asked["pairs"] = sum(len(row[3]) for row in noted)
        self.lost["pairs"] = lost
