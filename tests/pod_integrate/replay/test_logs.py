"""Logs are read in a bounded amount of memory, and errors name their line."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pod_integrate.errors import TraceError
from pod_integrate.replay import requests
from pod_integrate.replay.recorded import Recorded, files_of, geometry_of
from pod_integrate.replay.requests import is_recorded, read
from pod_integrate.replay.serving import Step
from pod_integrate.replay.tally import Tally
from pod_integrate.terms.keys import DeviceKey, Geometry
from tuner.store.archive import SCHEMA

GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
DEVICE = DeviceKey("test-cpu", "avx512", 2)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def row(**changes: object) -> dict[str, object]:
    return {
        "time": 1.8e9, "server": "s", "geometry": str(GEOMETRY), "device": str(DEVICE),
        "build": "b", "bucket": "", "step": 1, "q_lens": [16, 1], "kv_lens": [64, 200],
        "step_us": 0.0, "attention_us": 800.0, "layers": 8, "config": "default",
        "source": "default",
    } | changes  # fmt: skip


def parquet(path: Path, *rows: dict[str, object], schema: pa.Schema = SCHEMA) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def test_a_log_is_open_no_further_than_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(AZURE + "2023-11-16 18:15:46.6805900,374,44\nbroken,x,1\n")
    found = read(path)
    assert next(found).prompt_tokens == 374
    with pytest.raises(TraceError, match=f"{path}:3: "):
        next(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AZURE + "2023-11-16 18:15:46.68,-1,44\n", ":2: prompt of -1 tokens"),
        (AZURE + "2023-11-16 18:15:46.68,1,99999999999\n", ":2: answer of 99999999999"),
        (AZURE + "2023-11-16 18:15:46.68,3", ":2: no GeneratedTokens: the line is cut"),
        ("num_prefill_tokens,num_decode_tokens\n5\n", ":2: no num_decode_tokens"),
        ("num_prefill_tokens,num_decode_tokens\nnan,1\n", ":2: "),
        ("num_prefill_tokens,num_decode_tokens\ninf,1\n", ":2: "),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n[]\n', ":2: not a Mooncake"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{', ":2: not a Mooncake"),
        ('{"timestamp": 0, "input_length": 1e400, "output_length": 1}', ":1: not a Mooncake"),
    ],
)
def test_a_record_that_is_malformed_names_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(TraceError) as refused:
        list(read(path))
    assert f"{path}{said}" in str(refused.value)


def test_a_byte_order_mark_and_blank_lines_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("\ufeff" + AZURE + "2023-11-16 18:15:46.68,3,4\n\n")
    assert [r.prompt_tokens for r in read(path)] == [3]
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1}\n\n')
    assert [r.prompt_tokens for r in read(path)] == [5]


@pytest.mark.parametrize("start", ["{", "a"])
def test_a_file_without_line_ends_does_not_fill_the_memory(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_MOST_CHARACTERS", 1000)
    path = tmp_path / "log"
    path.write_text(start + "x" * 5000)
    with pytest.raises(TraceError, match=r":1: longer than 1000"):
        list(read(path))


def test_recorded_steps_of_one_geometry_are_read_with_their_times(tmp_path: Path) -> None:
    other = str(Geometry.uniform((4, 4, 64), "fp32", page_size=1))
    path = parquet(
        tmp_path / "traces-1-2.parquet",
        row(), row(geometry=other), row(device="another:avx2:4", kv_lens=[64, 300]),
    )  # fmt: skip
    assert is_recorded(path) and is_recorded(tmp_path) and files_of(tmp_path) == [path]
    assert geometry_of(path) == GEOMETRY
    found = Recorded([path], GEOMETRY, DEVICE)
    assert list(found.steps()) == [
        Step([16, 1], [64, 200], 800.0, 8), Step([16, 1], [64, 300]),
    ]  # fmt: skip
    assert found.others == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"q_lens": [1]}, {"q_lens": [99, 300]}, {"q_lens": [-1, 300]}, {"q_lens": None},
        {"q_lens": [None, 1]}, {"q_lens": [16, 1 << 30], "kv_lens": [64, 1 << 30]},
        {"attention_us": None}, {"attention_us": float("nan")}, {"attention_us": float("inf")},
        {"attention_us": -1.0}, {"layers": None}, {"layers": -1}, {"device": None},
    ],
    ids=str,
)  # fmt: skip
def test_recorded_step_that_no_tuner_took_names_its_row(
    changes: dict[str, object], tmp_path: Path
) -> None:
    # Other writers' columns may be null; ours are not.
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA])
    path = parquet(tmp_path / "t.parquet", row(), row(**changes), schema=schema)
    with pytest.raises(TraceError, match=f"{path}: row 2"):
        list(Recorded([path], GEOMETRY, DEVICE).steps())


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for ask in (is_recorded, lambda path: list(read(path))):
        with pytest.raises(TraceError, match=f"{pipe} is no regular file"):
            ask(pipe)


def test_files_that_are_no_archive_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"holds no \*.parquet"):
        is_recorded(tmp_path)
    few = parquet(tmp_path / "few.parquet", {"a": 1}, schema=pa.schema([("a", pa.int32())]))
    with pytest.raises(TraceError, match="has no column attention_us, device"):
        geometry_of(few)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(parquet(tmp_path / "whole.parquet", row()).read_bytes()[:300])
    with pytest.raises(TraceError, match=f"{cut} cannot be read"):
        geometry_of(cut)
    with pytest.raises(TraceError, match="holds no step"):
        geometry_of(parquet(tmp_path / "empty.parquet"))


def test_a_tally_weighs_by_measured_times_and_by_the_model_where_there_are_none() -> None:
    tally = Tally(GEOMETRY, DEVICE)
    assert tally.add(Step([1], [64], 800.0, 8)) == 100.0
    estimated = tally.add(Step([512], [512]))
    assert 0.0 < estimated != 100.0
    tally.add(Step([16, 1], [64, 200], 80.0, 8))
    document = tally.document()
    assert (document["steps"], document["hybrid_steps"]) == (3, 1)
    assert [r["us"] for r in document["buckets"]] == sorted([100.0, estimated, 10.0], reverse=True)
    assert sum(r["time_share"] for r in document["buckets"]) == pytest.approx(1.0)
