"""Drafts of the part `spec` without a GPU: models made of a model, and the module that may lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from benchmarks.gpu.engines import spec_deep_gemm, spec_drafts
from pod_integrate.demo.llama import make_demo_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama whose norms have weights of their own, as trained ones have."""
    folder = make_demo_model(tmp_path / "model", layers=3)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    torch.manual_seed(1)
    for norm in (net.model.norm, net.model.layers[0].input_layernorm):
        norm.weight.data.uniform_(0.5, 1.5)
    net.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def test_draft_model_lacks_the_last_layers(tmp_path: Path, model: Path) -> None:
    spec_drafts.write_draft(tmp_path / "draft", model, dropped=2)
    draft, whole = loaded(tmp_path / "draft"), loaded(model)
    assert draft.config.num_hidden_layers == len(draft.model.layers) == 1
    weights = [net.model.layers[0].self_attn.q_proj.weight for net in (draft, whole)]
    assert weights[0].equal(weights[1].bfloat16().float())


def test_a_last_norm_that_moved_into_the_head_answers_alike(model: Path) -> None:
    ids = torch.arange(3, 40)[None]
    before = loaded(model)(ids).logits
    spec_drafts.move_last_norm(model)
    net = loaded(model)
    assert net.model.norm.weight.eq(1.0).all() and not net.config.tie_word_embeddings
    assert (net(ids).logits - before).abs().max() < 0.02 * before.abs().max()


def test_an_eagle_head_drafts_by_the_layers_that_are_left(tmp_path: Path, model: Path) -> None:
    spec_drafts.move_last_norm(model)
    spec_drafts.write_eagle(tmp_path / "eagle", model, dropped=1)
    told = json.loads((tmp_path / "eagle" / "config.json").read_text())
    assert told["architectures"] == ["LlamaForCausalLMEagle"] and told["num_hidden_layers"] == 2
    weights = load_file(tmp_path / "eagle" / "model.safetensors")
    # As SGLang names and shapes them: no head, which is the model's, and no first norm.
    assert not [n for n in weights if n.startswith(("model.", "lm_head", "layers.0.input_l"))]
    assert {n.split(".")[1] for n in weights if n.startswith("layers.")} == {"0", "1"}
    net = loaded(model)
    # Without the padding token's, which is zero.
    embedding = net.model.embed_tokens.weight
    embedding = embedding[embedding.norm(dim=-1) > 0]
    states = torch.cat([embedding, torch.randn_like(embedding)], dim=-1)
    taken = states @ weights["fc.weight"].float().T + weights["fc.bias"].float()
    # What the first layer's products make of it, against the model's own norm before them.
    own = net.model.layers[0]
    want = own.self_attn.q_proj(own.input_layernorm(embedding))
    got = taken @ weights["layers.0.self_attn.q_proj.weight"].float().T
    assert torch.nn.functional.cosine_similarity(want, got).min() > 0.999
    ratio = got.norm(dim=-1) / want.norm(dim=-1)
    assert ratio.median().item() == pytest.approx(1.0, rel=0.02)


def run_python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_without_deep_gemm_engines_get_a_module_that_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_deep_gemm, "_PROBE", "import deep_gemm_that_is_not_there")
    told, what = spec_deep_gemm.environment(tmp_path)
    assert what.startswith("a stand-in: ") and "deep_gemm_that_is_not_there" in what
    assert told["SGLANG_ENABLE_JIT_DEEPGEMM"] == "0"
    found = run_python("import deep_gemm; deep_gemm.get_num_sms()", told)
    assert "deep_gemm is not installed" in found.stderr and found.returncode == 1
    for wrong in ("from deep_gemm import fp8_gemm_nt", "import deep_gemm.utils.layout"):
        assert run_python(wrong, told).returncode == 1


def test_with_deep_gemm_engines_get_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_deep_gemm, "_PROBE", "print('0.1.5')")
    assert spec_deep_gemm.environment(tmp_path) == ({"SGLANG_ENABLE_JIT_DEEPGEMM": "0"}, "0.1.5")
    assert not list(tmp_path.iterdir())
