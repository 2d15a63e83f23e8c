"""Answers of trained models that were kept: what makes them count again."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.engines import real
from benchmarks.real import jobs
from benchmarks.real.kept import Kept


def test_kept_values_outlive_a_cut_but_not_another_job(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    first = Kept(path, "a")
    first.add("answers", 0, [1, 2])
    first.add("answers", 1, [3])
    path.write_text(path.read_text()[:-5])
    before = path.read_text()
    assert Kept(path, "a", reading=True).stage("answers") == {0: [1, 2]}
    assert not Kept(path, "b", reading=True).stage("answers") and path.read_text() == before
    again = Kept(path, "a")
    assert again.stage("answers") == {0: [1, 2]} and not again.has("answers", 1)
    again.add("answers", 1, [4])
    assert Kept(path, "a").stage("answers") == {0: [1, 2], 1: [4]}
    assert not Kept(path, "b").stage("answers")


def test_a_stage_of_another_job_is_begun_anew_and_the_others_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    first = Kept(path, {"answers": "a", "windows": "w"})
    first.add("answers", 0, [1])
    first.add("windows", 0, [-1.0])
    second = Kept(path, {"answers": "a", "windows": "x"})
    assert second.stage("answers") == {0: [1]} and not second.has("windows", 0)
    second.add("windows", 0, [-2.0])
    assert Kept(path, {"answers": "a", "windows": "x"}).stage("windows") == {0: [-2.0]}


def test_answers_count_again_whatever_else_is_asked_of_the_same_weights() -> None:
    names = ("asked", "new", "group", "windows", "forced", "beside")
    shared = dict.fromkeys(names, 1)
    before = jobs.by_stage(shared, ["weights", "build"])
    text = jobs.by_stage(shared | {"windows": 2}, ["weights", "build"])
    assert {stage for stage in before if before[stage] != text[stage]} == {"windows", "steps"}
    new = jobs.by_stage(shared | {"new": 2}, ["weights", "build"])
    changed = {stage for stage in before if before[stage] != new[stage]}
    assert changed == {"answers", "again", "margins", "steps"}
    other = jobs.by_stage(shared, ["weights", "another build"])
    assert all(before[stage] != other[stage] for stage in before)
    assert set(real._REFERENCE) < set(before)
