"""What is refused, and what goes to stock attention with one warning: never a wrong answer."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers

from pod_integrate import hf
from pod_integrate.engines.transformers import stock
from pod_integrate.engines.transformers.attention import pod_attention
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError
from pod_integrate.testing import hf_models


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_warned", set())


def layer(**attributes: Any) -> torch.nn.Module:
    module = torch.nn.Module()
    for name, value in {"layer_idx": 0, "num_key_value_groups": 2, **attributes}.items():
        setattr(module, name, value)
    return module


def qkv(*, dim: int = 32, length: int = 6) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    heads = {"q": 4, "k": 2, "v": 2}
    return tuple(torch.randn(2, n, length, dim) for n in heads.values())


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **kwargs)
    return out.transpose(1, 2)


def test_plain_layer_is_computed_by_the_op() -> None:
    q, k, v = qkv()
    out, weights = pod_attention(layer(), q, k, v, None)
    torch.testing.assert_close(out, sdpa(q, k, v, is_causal=True))
    assert weights is None and stock._warned == set()


def test_gradients_are_those_of_stock_attention_and_are_announced_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = [hf_models.build("llama", name) for name in ("sdpa", "pod")]
    ids = torch.tensor(hf_models.random_prompts((20,)))
    gradients = []
    with caplog.at_level(logging.WARNING, logger=stock.__name__):
        for model in models:
            model.train()
            for _ in range(2):
                model.zero_grad()
                model(ids, labels=ids).loss.backward()
            gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(*gradients)
    assert [record.message.count("gradients are on") for record in caplog.records] == [1]


def test_dropout_goes_to_stock_attention() -> None:
    q, k, v = qkv()
    torch.manual_seed(1)
    out, _ = pod_attention(layer(), q, k, v, None, dropout=0.5)
    torch.manual_seed(1)
    torch.testing.assert_close(out, sdpa(q, k, v, is_causal=True, dropout_p=0.5))
    assert any("dropout" in reason for reason in stock._warned)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss"])
def test_attention_weights_are_never_wrong(name: str) -> None:
    ids = torch.tensor(hf_models.random_prompts((20,)))
    with torch.no_grad():
        eager = hf_models.build(name, "eager")(ids, output_attentions=True)
        pod = hf_models.build(name, "pod")(ids, output_attentions=True)
    torch.testing.assert_close(pod.logits, eager.logits, rtol=1e-4, atol=1e-4)
    for got, want in zip(pod.attentions or (), eager.attentions, strict=False):
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt_oss"])
def test_padding_on_the_right_gives_the_logits_of_stock_attention(name: str) -> None:
    ids = torch.tensor(hf_models.random_prompts((40, 40)))
    mask = torch.ones_like(ids)
    mask[0, 30:] = 0
    with torch.no_grad():
        want = hf_models.build(name, hf_models.reference_of(name))(ids, attention_mask=mask).logits
        got = hf_models.build(name, "pod")(ids, attention_mask=mask).logits
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()], rtol=1e-4, atol=1e-4)
    assert any("padding on the left" in reason for reason in stock._warned)


def test_sequences_packed_by_position_ids_stay_apart() -> None:
    prompts = hf_models.random_prompts((9, 14))
    ids = torch.tensor([prompts[0] + prompts[1]])
    positions = torch.tensor([[*range(9), *range(14)]])
    model = hf_models.build("llama", "pod")
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits[0, 9:]
        alone = model(torch.tensor([prompts[1]])).logits[0]
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_layer_that_is_not_causal_goes_to_stock_attention() -> None:
    q, k, v = qkv()
    out, _ = pod_attention(layer(is_causal=False), q, k, v, None)
    torch.testing.assert_close(out, sdpa(q, k, v))
    assert any("not causal" in reason for reason in stock._warned)


@pytest.mark.parametrize("dim", [24, 40, 288])
def test_head_dim_without_a_kernel_is_refused(dim: int) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"got {dim}; use attn_implementation"):
        pod_attention(layer(), *qkv(dim=dim), None)


def test_value_head_dim_of_its_own_is_refused() -> None:
    q, k, v = qkv()
    with pytest.raises(UnsupportedFeatureError, match="32 for keys and 16 for values"):
        pod_attention(layer(), q, k, v[..., :16], None)


def test_other_device_is_refused() -> None:
    tensors = [tensor.to("meta") for tensor in qkv()]
    with pytest.raises(KernelUnavailableError, match="not on meta"):
        pod_attention(layer(), *tensors, None)


@pytest.mark.parametrize("name", ["position_bias", "head_mask"])
def test_argument_that_changes_scores_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"does not support {name}"):
        pod_attention(layer(), *qkv(), None, **{name: torch.ones(1)})


def test_paged_cache_without_a_prepared_step_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="was not prepared"):
        pod_attention(layer(), *qkv(), None, cache=torch.nn.Module(), write_index=[])


def test_model_with_an_odd_head_dim_is_refused_before_it_runs() -> None:
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=48, num_attention_heads=2, num_hidden_layers=1
    )
    model = hf_models.from_config(config, "sdpa")
    with pytest.raises(UnsupportedFeatureError, match="got 24"):
        hf.enable(model)
    assert model.config._attn_implementation == "sdpa"


def test_encoder_decoder_model_is_refused() -> None:
    config = transformers.T5Config(
        vocab_size=32, d_model=64, d_ff=64, num_layers=1, num_heads=2, d_kv=32
    )
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(UnsupportedFeatureError, match="is encoder-decoder"):
        hf.enable(model)


def test_model_given_to_enable_goes_back_when_disabled() -> None:
    model = hf_models.build("llama", "eager")
    hf.enable(model)
    hf.enable(model)
    assert model.config._attn_implementation == "pod"
    hf.disable()
    assert model.config._attn_implementation == "eager"
    hf.enable()
