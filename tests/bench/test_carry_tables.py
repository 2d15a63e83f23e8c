"""Shipped tables follow sources that changed in comments and white space alone, no others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import carry_tables, default_choices
from benchmarks.gpu.shipped.served import SERVED
from pod_integrate.devices.cuda import heavy_prefill
from pod_integrate.live import shipped
from pod_integrate.model.items import make_plan


def tree(folder: Path, text: str) -> dict[str, object]:
    folder.mkdir()
    (folder / "a.cuh").write_text(text)
    return {"roots": [str(folder)], "flags": ["-O3"], "build": folder.name}


CODE = '#define A 1  // one\nint f() { return A; }\nconst char* s = "//no";\n'


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ('#define A 1\n/* two\nlines */ int f()  { return A; }\nconst char* s = "//no";', True),
        ('#define A 1 int f() { return A; }\nconst char* s = "//no";', False),
        ('#define A 2\nint f() { return A; }\nconst char* s = "//no";', False),
        ('#define A 1\nint f() { return A; }\nconst char* s = "";', False),
    ],
)
def test_only_what_a_compiler_reads_counts(tmp_path: Path, other: str, same: bool) -> None:
    found = carry_tables.differing(tree(tmp_path / "x", CODE), tree(tmp_path / "y", other))
    assert found == ([] if same else ["0/a.cuh"])


def test_a_file_of_one_side_and_other_flags_are_named(tmp_path: Path) -> None:
    before, after = tree(tmp_path / "x", CODE), tree(tmp_path / "y", CODE)
    (tmp_path / "y" / "b.h").write_text("int g();")
    assert carry_tables.differing(before, after | {"flags": []}) == ["0/b.h", "flags"]


def test_a_table_changes_its_build_and_nothing_else() -> None:
    table = shipped.everything()[0]
    new = carry_tables.carried(table, table.build, "cuda-new")
    assert new.build == "cuda-new" and new.entries == table.entries != {}
    assert dataclasses.replace(new, build=table.build) == table
    assert carry_tables.carried(table, "cuda-third", "cuda-new") is table


def test_a_bucket_whose_default_is_another_is_dropped() -> None:
    table = shipped.everything()[0]
    bucket = next(iter(table.entries))
    dropped = {f"{table.geometry} {bucket}", f"another {next(reversed(table.entries))}"}
    new = carry_tables.carried(table, table.build, "cuda-new", dropped)
    assert table.entries.keys() - new.entries.keys() == {bucket}


def test_a_default_that_chooses_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(default_choices, "SERVED", SERVED[:1])
    monkeypatch.setattr(default_choices, "BATCHES", ("p2k@8k+d64@8k", "d64@4k"))

    def choices() -> dict[str, str]:
        default_choices.main()
        ((_, found),) = json.loads(capsys.readouterr().out).items()
        return dict(found)

    before = choices()
    monkeypatch.setattr(heavy_prefill, "LEAST_FLOP", 1e30)
    changed = {place for place, told in choices().items() if before[place] != told}
    assert before.keys() > changed == {f"{SERVED[0].geometry} p2k@8k+d64@8k"}


def test_the_order_of_items_is_no_choice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(default_choices, "SERVED", SERVED[:1])
    monkeypatch.setattr(default_choices, "BATCHES", ("p2k@8k+d64@8k",))

    def reversed_plan(*arguments: Any) -> Any:
        plan = make_plan(*arguments)
        return plan._replace(prefill=plan.prefill[::-1], decode=plan.decode[::-1])

    default_choices.main()
    before = capsys.readouterr().out
    monkeypatch.setattr(default_choices, "make_plan", reversed_plan)
    default_choices.main()
    assert capsys.readouterr().out == before


def test_other_machine_code_is_carried_for_a_reason_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # No table is of this build, so that nothing is written either way.
    monkeypatch.setattr(carry_tables, "ask", lambda *_: {"build": "cuda-none"})
    monkeypatch.setattr(carry_tables, "differing", lambda *_: ["a.cuh"])
    monkeypatch.setattr(carry_tables, "compiled_apart", lambda *_: ["v: 9 % other instructions"])
    with pytest.raises(SystemExit, match="measure again"):
        carry_tables.main([str(tmp_path)])
    with pytest.raises(SystemExit, match="no shipped table is of cuda-none"):
        carry_tables.main([str(tmp_path), "--although", "of a change that all configs share"])
    assert "although: of a change that all configs share" in capsys.readouterr().out


def test_variants_are_those_of_the_entries() -> None:
    names = carry_tables.variants(shipped.everything())
    assert "sm_90a-bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1" in names
    # What most batches run in its place.
    assert "sm_90a-bf16-d128-p128x64s2w4-d8x192s1w4-c2-v1" in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("registers", "smem", "changed", "why"),
    [
        (128, True, {"IADD": [10, 14]}, ""),
        (128, True, {"IADD": [10, 30]}, "2.0 % other instructions in fused"),
        (129, True, {}, "other registers or shared memory"),
        (128, False, {}, "other registers or shared memory"),
    ],
)
def test_machine_code_may_differ_by_few_instructions(
    registers: int, smem: bool, changed: dict[str, list[int]], why: str
) -> None:
    def kernel(registers: int, changed: dict[str, list[int]]) -> dict[str, Any]:
        resources = [{"registers": 128}, {"registers": registers}]
        return {"instructions": [1000, 990], "opcodes": changed, "resources": resources}

    same, merge = kernel(128, {}), kernel(95, {"IADD": [10, 900]})
    kernels = {"fused": kernel(registers, changed), "prefill": same, "decode": same, "merge": merge}
    assert carry_tables.apart({"same_smem": smem, "kernels": kernels}) == why
