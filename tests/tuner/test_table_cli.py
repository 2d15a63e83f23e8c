"""`pod-attn table`: what a tuner has in force comes out, is checked, compared and read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Served
from support.command import run, said
from support.web import Quiet, serving
from tuner_support import BUCKET, BUILD, DEFAULT, DEVICE, GEOMETRY, SCOPE

from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from tuner.messages import Scope

EVIDENCE = Evidence(
    pairs=40, steps=10, median_speedup=1.21, lower_bound=1.125, confidence=0.95, method="replay",
    measured_at="2026-01-02T03:04:05.000Z", build=BUILD, trial=3,
)  # fmt: skip
ENTRY = TableEntry(DEFAULT, EVIDENCE)
TABLE = ConfigTable(4, GEOMETRY, DEVICE, BUILD, "2026-01-02T03:04:05.000Z",
                    {Bucket.parse(BUCKET): ENTRY})  # fmt: skip


def put_in_force(served: Served, entry: TableEntry, scope: Scope = SCOPE) -> None:
    def change() -> None:
        tuner = served.tuner
        with tuner.store.begin() as tx:
            made = tuner.tables.change(tx, scope, Bucket.parse(BUCKET), entry, tuner.clock())
        tuner.tables.commit(scope, made)

    served.core._executor.submit(change).result()
    # The overview is cached for a second.
    served.app.state.feed._built = -10.0


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_bytes(TABLE.to_json(checksum=True))
    return path


def test_a_table_of_a_tuner_is_shown_exported_and_the_same_again(
    served: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, text = said(capsys, "table", "show", served.url)
    assert code == 2 and "no table yet" in text
    put_in_force(served, ENTRY)
    code, text = said(capsys, "table", "show", served.url)
    assert code == 0
    for part in (BUCKET, "1.210x", "1.125x", "10", "replay", str(GEOMETRY), BUILD, "version 1"):
        assert part in text
    file = tmp_path / "out.json"
    code, text = said(capsys, "table", "export", served.url, str(file))
    assert code == 0 and "blake2b-" in text
    table = ConfigTable.from_json(file.read_bytes())
    assert table.entries == TABLE.entries and table.checksum in text
    code, text = said(capsys, "table", "diff", served.url, str(file))
    assert code == 0 and "the same configs" in text
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.json"]


def test_among_several_tables_of_a_tuner_one_is_chosen_by_a_part_of_its_name(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_force(served, ENTRY)
    put_in_force(served, ENTRY, SCOPE._replace(device="other-cpu:avx2:4"))
    code, text = said(capsys, "table", "show", served.url)
    assert code == 2 and "several tables" in text and "other-cpu:avx2:4" in text
    code, text = said(capsys, "table", "show", served.url, "--device", "other")
    assert code == 0 and "other-cpu:avx2:4" in text
    code, text = said(capsys, "table", "show", served.url, "--device", "gpu")
    assert code == 2 and "no such one" in text and str(DEVICE) in text


def test_a_whole_key_chooses_though_others_go_on_with_it(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    capped = str(dataclasses.replace(GEOMETRY, logit_cap=0.5))
    assert capped.startswith(SCOPE.geometry)
    put_in_force(served, ENTRY)
    put_in_force(served, ENTRY, SCOPE._replace(geometry=capped))
    for geometry in (SCOPE.geometry, capped):
        code, text = said(capsys, "table", "show", served.url, "--geometry", geometry)
        assert code == 0 and f"{geometry} on" in text
    # Beside it a device and a build that go on with others.
    put_in_force(served, ENTRY, SCOPE._replace(device=f"{SCOPE.device}0"))
    put_in_force(served, ENTRY, SCOPE._replace(build=f"{SCOPE.build}0"))
    whole = ("--geometry", SCOPE.geometry, "--device", SCOPE.device, "--build", SCOPE.build)
    code, text = said(capsys, "table", "show", served.url, *whole)
    assert code == 0 and f"{SCOPE.geometry} on {SCOPE.device}" in text


def test_a_file_that_was_changed_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "table", "show", str(exported))[0] == 0
    document = json.loads(exported.read_bytes())
    # Laid out otherwise it says the same.
    exported.write_text(json.dumps(document))
    assert said(capsys, "table", "show", str(exported))[0] == 0
    document["entries"][BUCKET]["evidence"]["median_speedup"] = 9.0
    exported.write_text(json.dumps(document))
    code, text = said(capsys, "table", "show", str(exported))
    assert code == 2 and "checksum" in text and exported.name in text


def test_a_table_without_a_checksum_is_read_and_export_adds_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_bytes(TABLE.to_json())
    assert b"checksum" not in old.read_bytes()
    assert said(capsys, "table", "export", str(old), str(new))[0] == 0
    assert json.loads(new.read_bytes())["checksum"] == TABLE.checksum
    code, text = said(capsys, "table", "show", str(new), "--json")
    assert code == 0 and ConfigTable.from_json(text.encode()) == TABLE


def test_a_difference_names_what_came_went_and_changed(
    tmp_path: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(DEFAULT, decode_split_tokens=2 * DEFAULT.decode_split_tokens or 512)
    changed = TableEntry(other, EVIDENCE)
    entries = {Bucket.parse(BUCKET): changed, Bucket.parse("d8@2k"): ENTRY}
    new = tmp_path / "new.json"
    new.write_bytes(dataclasses.replace(TABLE, entries=entries).to_json())
    code, text = said(capsys, "table", "diff", str(exported), str(new))
    lines = [line for line in text.splitlines() if line[:1] in "+-~"]
    assert code == 1
    assert [line.split()[:2] for line in lines] == [["+", "d8@2k"], ["~", BUCKET]]
    assert f"{DEFAULT.short()} (1.210x)  ->  {other.short()} (1.210x)" in lines[1]
    code, text = said(capsys, "table", "diff", str(new), str(exported))
    assert code == 1 and "- d8@2k" in text


def test_a_file_of_another_device_than_asked_for_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, "table", "show", str(exported), "--device", "h100")
    assert code == 2 and str(DEVICE) in text


class _Other(Quiet):
    """A service that is no tuner and answers all that it is asked."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@pytest.fixture
def other() -> Iterator[str]:
    with serving(_Other) as url:
        yield url.replace("//", "//user:secret@")


@pytest.mark.parametrize(
    "body",
    ["{}", '{"tables": null, "buckets": 1}', '{"tables": [{}], "buckets": [{}]}', "[]", "<html>",
     '{"tables": [{"geometry": "", "device": "", "build": ""}], "buckets": []}', "", "[" * 100_000],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
@pytest.mark.parametrize(
    "command", [["table", "show"], ["tuner", "pause", "--url"], ["tuner", "pin", BUCKET, "--url"]]
)
def test_another_service_at_the_address_is_one_line_without_the_password(
    command: list[str], body: str, other: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(_Other, "body", body.encode())
    code, _, err = run(capsys, *command, other)
    assert code == 2 and len(err.splitlines()) == 1 and "127.0.0.1" in err
    assert "secret" not in err


def test_a_tuner_without_tables_is_named_without_the_password(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Other, "body", b'{"tables": [], "buckets": []}')
    code, text = said(capsys, "table", "show", other)
    assert code == 2 and "no table yet" in text and "secret" not in text


def test_what_is_no_tuner_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "table", "show", "http://127.0.0.1:9")
    assert code == 2 and "is it up there?" in text and "Traceback" not in text
    code, text = said(capsys, "table", "show", "no-such-file.json")
    assert code == 2 and "no-such-file.json" in text
