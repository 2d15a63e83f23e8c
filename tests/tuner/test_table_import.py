"""A table from elsewhere is in force here, with a name, until it is found slower."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_support import TOKEN, Served
from support.command import run
from tuner_support import (
    BUCKET,
    BUILD,
    DEFAULT,
    DEVICE,
    GEOMETRY,
    KEY,
    SCOPE,
    Clock,
    RecordedBench,
    bucket,
    drive,
    kinds,
    make_tuner,
    message,
    overview,
    trials,
)

from pod_integrate.errors import TraceError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from tuner.core import Tuner
from tuner.orders import PinOrder, TableOrder

EVIDENCE = Evidence(
    pairs=40, steps=10, median_speedup=1.25, lower_bound=1.125, confidence=0.95, method="replay",
    measured_at="2026-01-02T03:04:05.000Z", build=BUILD, trial=3,
)  # fmt: skip
FINER = dataclasses.replace(DEFAULT, decode_split_tokens=256)
OTHER = "d8@2k"


def table(**changes: Any) -> ConfigTable:
    entries = {Bucket.parse(name): TableEntry(FINER, EVIDENCE) for name in (BUCKET, OTHER)}
    made = ConfigTable(9, GEOMETRY, DEVICE, BUILD, "2026-01-02T03:04:05.000Z", entries)
    return dataclasses.replace(made, **changes)


def order(given: ConfigTable) -> TableOrder:
    document = msgspec.json.decode(given.to_json(checksum=True))
    body = {"who": "ada", "why": "a test", "table": document}
    return TableOrder.decode(msgspec.json.encode(body))


def in_force(tuner: Tuner) -> dict[Bucket, TableEntry]:
    body = tuner.table(SCOPE)
    return {} if body is None else ConfigTable.from_json(body).entries


def test_an_import_is_one_version_with_a_decision_of_its_person(tuner: Tuner) -> None:
    tuner.ingest(message())
    answer = tuner.import_table(order(table()))
    assert answer == (True, "2 configs in force, 0 were already")
    body = tuner.table(SCOPE)
    assert body is not None and ConfigTable.from_json(body).version == 1
    assert {str(b): e.config for b, e in in_force(tuner).items()} == {BUCKET: FINER, OTHER: FINER}
    decisions = overview(tuner)["decisions"]
    assert [d["kind"] for d in decisions] == ["promote", "promote"]
    assert {d["who"] for d in decisions} == {"ada"} and "a test" in decisions[0]["reason"]
    assert decisions[0]["lower_bound"] == EVIDENCE.lower_bound
    again = tuner.import_table(order(table()))
    assert again == (True, "0 configs in force, 2 were already")
    assert tuner.table(SCOPE) == body


def test_a_table_of_a_build_that_no_server_has_says_so(tuner: Tuner) -> None:
    tuner.ingest(message())
    answer = tuner.import_table(order(table(build="cpu-other")))
    assert answer.done and "no server of build cpu-other was seen here" in answer.text
    assert tuner.table(SCOPE) is None


def test_entries_that_another_build_measured_are_named_as_such(tuner: Tuner) -> None:
    tuner.ingest(message())
    old = TableEntry(FINER, msgspec.structs.replace(EVIDENCE, build="cpu-old"))
    entries = table().entries | {Bucket.parse(OTHER): old}
    answer = tuner.import_table(order(table(entries=entries)))
    assert answer.done and "1 were measured with another build (cpu-old)" in answer.text
    said = {d["bucket"]: d["reason"] for d in overview(tuner)["decisions"]}
    assert "with build cpu-old, which proves nothing" in said[OTHER] and "build" not in said[BUCKET]


def test_what_was_imported_is_checked_here_and_goes_when_it_is_slower(
    tuner: Tuner, clock: Clock
) -> None:
    def slower(config: PodConfig) -> float:
        return 2000.0 if config == FINER else 1000.0

    tuner.ingest(message())
    tuner.import_table(order(table()))
    assert bucket(tuner)["status"] == "promoted"
    drive(tuner, RecordedBench(slower), tasks=1)
    clock.now += tuner.settings.recheck_seconds
    drive(tuner, RecordedBench(slower))
    assert "rollback" in kinds(tuner)
    assert Bucket.parse(BUCKET) not in in_force(tuner) and Bucket.parse(OTHER) in in_force(tuner)


def test_what_was_imported_stays_while_it_is_faster_and_after_a_restart(
    tmp_path: Path, clock: Clock
) -> None:
    first = make_tuner(tmp_path / "again", clock)
    first.ingest(message())
    first.import_table(order(table()))
    first.close()
    second = make_tuner(tmp_path / "again", clock)
    faster = RecordedBench(lambda config: 500.0 if config == FINER else 1000.0)
    drive(second, faster, tasks=1)
    clock.now += second.settings.recheck_seconds
    drive(second, faster)
    assert in_force(second)[Bucket.parse(BUCKET)].config == FINER
    shown = trials(second, KEY)
    numbers = {trial["number"]: trial for trial in shown["trials"]}
    # The default has been measured against itself, as in every study.
    assert numbers[0]["config_short"] == DEFAULT.short()
    assert numbers[shown["promoted"]]["config_short"] == FINER.short()
    assert "rollback" not in kinds(second)
    second.close()


def test_a_pinned_bucket_stays_as_it_is(tuner: Tuner) -> None:
    tuner.pin(PinOrder(who="ada", **KEY._asdict()))
    answer = tuner.import_table(order(table()))
    assert answer.done and answer.text.startswith("1 configs in force")
    assert f"{BUCKET} is pinned" in answer.text
    assert set(in_force(tuner)) == {Bucket.parse(OTHER)}


def test_a_table_that_servers_would_refuse_is_refused_whole(tuner: Tuner) -> None:
    tile = dataclasses.replace(DEFAULT.prefill, q_rows=4096, kv_rows=4096)
    bad = dataclasses.replace(DEFAULT, prefill=tile)
    entries = table().entries | {Bucket.parse("d4@2k"): TableEntry(bad, EVIDENCE)}
    answer = tuner.import_table(order(table(entries=entries)))
    assert not answer.done and "d4@2k" in answer.text
    assert in_force(tuner) == {}


def test_a_table_without_a_checksum_or_with_a_wrong_one_is_malformed() -> None:
    document = msgspec.json.decode(table().to_json())
    body = {"who": "ada", "table": document}
    with pytest.raises(TraceError, match="no checksum"):
        TableOrder.decode(msgspec.json.encode(body))
    document["checksum"] = "blake2b-0"
    with pytest.raises(TraceError, match="checksum"):
        TableOrder.decode(msgspec.json.encode(body))


@pytest.mark.parametrize("served", [TOKEN], indirect=True)
def test_the_command_imports_with_the_token_and_says_what_came_of_it(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file, token = tmp_path / "table.json", tmp_path / "token"
    file.write_bytes(table().to_json(checksum=True))
    words = ("table", "import", str(file), served.url)
    for name in ("POD_ATTN_TUNER_TOKEN", "POD_TUNER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = run(capsys, *words)
    assert code == 2 and "token" in err
    token.write_text(TOKEN)
    code, out, _ = run(capsys, *words, "--token-file", str(token))
    assert code == 0 and "2 configs in force" in out
    changed = json.loads(file.read_bytes()) | {"version": 10}
    file.write_text(json.dumps(changed))
    code, _, err = run(capsys, *words, "--token-file", str(token))
    assert code == 2 and "checksum" in err
