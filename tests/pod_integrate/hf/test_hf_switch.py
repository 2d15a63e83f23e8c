"""Models on and off `pod`: whatever put a model on it, disable() gives it its attention back."""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.engines import hf_models
from pod_integrate import hf
from pod_integrate.engines.transformers import patches, stock
from pod_integrate.engines.transformers.checks import check_dtype, check_head_dim, check_model
from pod_integrate.errors import DtypeError, KernelUnavailableError, UnsupportedFeatureError

IDS = torch.tensor(hf_models.random_prompts((9,)))


@pytest.fixture(autouse=True)
def enabled_again(enabled: None) -> Iterator[None]:
    yield
    hf.enable()


def implementation(model: Any) -> Any:
    return model.config._attn_implementation


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits
    return result


def llava(implementation: Any) -> Any:
    """A model of text and images whose parts have configs, and attention, of their own."""
    base = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    vision = transformers.CLIPVisionConfig(
        **base, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=64
    )
    text = transformers.LlamaConfig(**base, num_attention_heads=2, vocab_size=hf_models.VOCAB)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=2)
    return transformers.LlavaForConditionalGeneration._from_config(
        config, attn_implementation=implementation
    ).eval()


def parts(model: Any) -> tuple[Any, Any, Any]:
    config = model.config
    whole, text, vision = (
        part._attn_implementation for part in (config, config.text_config, config.vision_config)
    )
    return whole, text, vision


@pytest.mark.parametrize(("name", "chosen"), [("llama", "sdpa"), ("gpt_oss", "eager")])
def test_model_loaded_with_pod_gets_what_transformers_would_have_chosen(
    name: str, chosen: str
) -> None:
    model, want = hf_models.build(name, "pod"), logits(hf_models.build(name, chosen))
    hf.enable(model)
    hf.disable()
    assert implementation(model) == chosen
    assert torch.equal(logits(model), want)


def test_enable_and_disable_twice_and_in_any_order() -> None:
    first, second = hf_models.build("llama", "eager"), hf_models.build("llama", "sdpa")
    hf.disable()
    hf.disable()
    for model in (first, second, first):
        hf.enable(model)
    assert implementation(first) == implementation(second) == "pod"
    for _ in range(2):
        hf.disable()
        assert (implementation(first), implementation(second)) == ("eager", "sdpa")
    hf.enable(second)
    assert (implementation(first), implementation(second)) == ("eager", "pod")


def test_attention_chosen_by_hand_since_is_kept() -> None:
    model = hf_models.build("llama", "sdpa")
    hf.enable(model)
    model.set_attn_implementation("eager")
    hf.disable()
    assert implementation(model) == "eager"


def test_copies_and_pickles_of_an_enabled_model_go_back_too() -> None:
    model = hf_models.build("llama", "eager")
    want = logits(model)
    hf.enable(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    others = [copy.deepcopy(model), torch.load(stored, weights_only=False)]
    assert [implementation(one) for one in others] == ["pod", "pod"]
    hf.disable()
    for one in (model, *others):
        assert implementation(one) == "eager"
        assert torch.equal(logits(one), want)


@pytest.mark.parametrize("by_enable", [True, False])
def test_saved_model_loads_where_pod_is_unknown(by_enable: bool, tmp_path: Path) -> None:
    model = hf_models.build("llama", "sdpa" if by_enable else "pod")
    hf.enable(model)
    model.save_pretrained(tmp_path)
    assert "pod" not in json.loads((tmp_path / "config.json").read_text()).values()
    hf.disable()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert implementation(loaded) == "sdpa"
    assert torch.equal(logits(loaded), logits(model))


def test_parts_of_a_multimodal_model_go_back_to_their_own_attention() -> None:
    before = {"": "sdpa", "text_config": "eager", "vision_config": "sdpa"}
    model = llava(before)
    hf.enable(model)
    assert parts(model) == ("pod", "pod", "pod")
    hf.disable()
    assert parts(model) == ("sdpa", "eager", "sdpa")
    hf.enable()
    loaded = llava("pod")
    assert parts(loaded) == ("pod", "pod", "pod")
    hf.disable()
    assert parts(loaded) == ("sdpa", "sdpa", "sdpa")


def test_text_and_images_on_pod_give_the_logits_of_stock_attention() -> None:
    model = llava("sdpa")
    asked = {
        "input_ids": torch.tensor([[5, *[2] * 4, 9, 7]]),
        "pixel_values": torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
    }
    with torch.no_grad():
        want = model(**asked).logits
        hf.enable(model)
        got = model(**asked).logits
    torch.testing.assert_close(got, want)


def refused(model: Any, kind: type[Exception], text: str) -> None:
    before = implementation(model)
    hf.disable()
    with pytest.raises(kind, match=text):
        hf.enable(model)
    assert implementation(model) == before
    assert patches.NAME not in transformers.AttentionInterface._global_mapping


def test_dtype_without_a_kernel_is_refused_by_enable_with_the_alternative() -> None:
    model = hf_models.build("llama", "sdpa", dtype=torch.float64)
    refused(model, DtypeError, r"bfloat16.*got torch.float64; load the model with.*float32.*'sdpa'")


def test_dtype_of_a_model_loaded_with_pod_is_named_by_its_first_forward() -> None:
    model = hf_models.build("llama", "pod", dtype=torch.float64)
    with pytest.raises(DtypeError, match=r"got torch.float64; load the model with"):
        logits(model)


def test_model_without_memory_is_refused_by_enable() -> None:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(hf_models.MODELS["llama"]())
    refused(model, KernelUnavailableError, "the model is on meta; move it there")
    # Unless accelerate keeps the weights elsewhere.
    model.hf_device_map = {"model": "cpu", "lm_head": "disk"}
    check_model(model)


def test_limits_of_the_gpu_kernel_are_named() -> None:
    with pytest.raises(DtypeError, match=r"bfloat16, float16 on cuda, got torch.float32; load"):
        check_dtype(torch.float32, "cuda")
    with pytest.raises(UnsupportedFeatureError, match=r"on a GPU, got 80; use"):
        check_head_dim(80, 80, "cuda")
    check_head_dim(80, 80, "cpu")


@pytest.mark.parametrize("kind", ["Falcon", "Mamba"])
def test_model_whose_layers_never_ask_for_attention_is_refused_by_enable(kind: str) -> None:
    size = {"vocab_size": hf_models.VOCAB, "hidden_size": 64, "num_hidden_layers": 1}
    heads = {} if kind == "Mamba" else {"num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**size, **heads)
    text = f"{kind}ForCausalLM does not take other attention functions; use"
    refused(hf_models.from_config(config, "eager"), UnsupportedFeatureError, text)


def test_loading_with_pod_says_that_a_models_layers_never_ask_for_attention(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stock, "_warned", set())
    config = transformers.MambaConfig(
        vocab_size=hf_models.VOCAB, hidden_size=64, num_hidden_layers=1
    )
    with caplog.at_level(logging.WARNING, logger=stock.__name__):
        hf_models.from_config(config, "pod")
    assert "MambaForCausalLM does not take other attention functions" in caplog.text


def test_quantised_model_is_judged_by_what_it_computes_in() -> None:
    model = hf_models.build("llama", "sdpa", dtype=torch.float64)
    model.hf_quantizer = object()
    check_model(model)
