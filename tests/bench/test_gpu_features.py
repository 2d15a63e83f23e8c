"""SGLang with what people turn on, with engines made up: what is started and filed."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.engines import feature_models, features, pair
from benchmarks.gpu.engines.scores import Scored

OPTIONS = ["--device", "cpu", "--heads", "8", "--running", "3", "--prompts", "2", "--longest", "64",
           "--new", "8", "--least", "0"]  # fmt: skip


class Engine:
    """Says the same to a question, but one token of another batch."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.write_text("#new-token: 9, #cached-token: 0, x\n#new-token: 3, #cached-token: 17, x\n")

    def scores(self, limit: float, *, parts: int = 1) -> list[Scored]:
        assert limit > 0
        return [Scored([1, 2 if parts == 1 else 3], [-1.0, -1.0], [2.0, 0.0])]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Folder, job and the stock engine's arguments of each pair."""
    kept: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    @contextlib.contextmanager
    def standing(
        run: Any, job: Any, environments: Any, folders: Any, *, limit: float, engines: Any
    ) -> Iterator[dict[str, Engine]]:
        name = folders[0].name
        if name == "page-16":
            raise RuntimeError("exit status 1: no such page")
        kept.append((name, job, engines["stock"]))
        folders[1].mkdir(parents=True)
        yield {name: Engine(folders[1] / f"{name}.log") for name in environments}

    monkeypatch.setattr(pair, "standing", standing)
    monkeypatch.setattr(features, "make", lambda kind, folder, options: folder)
    monkeypatch.setattr(features, "make_adapter", lambda folder, options: folder)
    monkeypatch.setattr(features, "prebuild", lambda options: None)
    return kept


def run(tmp_path: Path, *more: str) -> dict[str, Any]:
    features.main([*OPTIONS, "--out", str(tmp_path), *more])
    found: dict[str, Any] = json.loads((tmp_path / "features.json").read_text())
    return found


def test_each_feature_starts_two_engines_that_differ_by_their_backend(
    tmp_path: Path, started: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    alone = [name for name, feature in features.FEATURES.items() if feature.gpus == 1]
    alone.remove("page-16")
    found = run(tmp_path, "--stages", ",".join(alone))
    assert [name for name, *_ in started] == alone == list(found["features"])
    for name, job, stock in started:
        feature, pod = features.FEATURES[name], job["engine"]
        assert feature.arguments.items() <= pod.items()
        assert pod["enable_mixed_chunk"] is feature.mixed
        assert Path(pod["model_path"]).name == feature.model
        apart = {key for key in pod if pod[key] != stock[key]}
        own = {"decode_attention_backend"} if feature.decode == "own" else set()
        assert apart == {"prefill_attention_backend", *own}
        assert found["features"][name]["pod against stock"]["answers_equal"] == 1.0
        assert found["features"][name]["pod in other batches"]["near_ties"] == 1.0
        assert found["features"][name]["cached_tokens"] == {"pod": 17, "stock": 17}


@pytest.mark.parametrize("kind", ["gemma2", "mellum", "qwen3_moe"])
def test_models_of_families_have_the_heads_that_are_asked_for(kind: str, tmp_path: Path) -> None:
    options = argparse.Namespace(device="cpu", layers=1, heads=8)
    folder = feature_models.make(kind, tmp_path / kind, options)
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 2)
    assert config["num_hidden_layers"] == 2
    if kind != "qwen3_moe":
        assert config["layer_types"] == ["sliding_attention", "full_attention"]
        assert config["sliding_window"] < 32
    assert list(folder.glob("*.safetensors"))
    before = (folder / "config.json").stat().st_mtime_ns
    assert feature_models.make(kind, folder, options) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


def test_an_adapter_is_of_the_models_attention(tmp_path: Path) -> None:
    options = argparse.Namespace(device="cpu", layers=2, heads=8)
    folder = feature_models.make_adapter(tmp_path / "adapter", options)
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert len(weights) == 2 * 2 * len(config["target_modules"])
    parts = {name.split(".", 4)[-1]: tuple(one.shape) for name, one in weights.items()}
    assert parts["0.self_attn.k_proj.lora_A.weight"] == (config["r"], 8 * 32)
    assert parts["1.self_attn.k_proj.lora_B.weight"] == (2 * 32, config["r"])
    assert feature_models.make_adapter(folder, options) == folder


def test_half_of_requests_and_questions_are_the_adapters(
    tmp_path: Path, started: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    run(tmp_path, "--stages", "lora", "--running", "24", "--prompts", "8")
    ((_, job, stock),) = started
    for part, count in (("requests", 32), ("questions", 16)):
        asked = [one.get("adapter") for one in job[part]]
        assert (len(asked), asked.count("adapter")) == (count, count // 2)
    assert stock["lora_paths"] == job["engine"]["lora_paths"] != {}


def test_a_feature_that_fails_leaves_the_others(
    tmp_path: Path, started: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    with pytest.raises(SystemExit, match="failed are page-16"):
        run(tmp_path, "--stages", "page-16,radix")
    found = json.loads((tmp_path / "features.json").read_text())
    assert "no such page" in found["failed"]["page-16"] and list(found["features"]) == ["radix"]


def test_what_takes_more_gpus_or_time_is_not_run_and_said_so(
    tmp_path: Path,
    started: list[tuple[str, dict[str, Any], dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = run(tmp_path, "--stages", "pipeline,radix", "--seconds", "1", "--least", "2")
    assert "2 GPUs" in found["not_run"]["pipeline"] and "s are left" in found["not_run"]["radix"]
    assert started == [] and found["features"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--heads", "6"], "at least 4, a multiple of 4"),
        (["--running", "0"], "at least 1"),
        (["--longest", "8"], "at least 32"),
        (["--questions", "0"], "at least 1"),
    ],
)
def test_a_load_that_is_none_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        features.main(["--device", "cpu", *options])
    assert words in capsys.readouterr().err


def test_two_requests_are_a_load(
    tmp_path: Path, started: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    run(tmp_path, "--stages", "radix", "--running", "1", "--prompts", "1")
    ((_, job, _),) = started
    assert len(job["warmup"]) == len(job["requests"]) == 2
