"""What is refused, and what goes to stock attention with one warning: never a wrong answer."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.engines import hf_models
from pod_integrate import hf
from pod_integrate.engines.transformers import checks, stock
from pod_integrate.engines.transformers.attention import pod_attention
from pod_integrate.engines.transformers.masks import pod_mask
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError


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


@pytest.mark.parametrize("name", ["position_bias", "head_mask", "indices", "block_indices"])
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


def test_mask_of_validity_with_holes_goes_to_stock_attention() -> None:
    q, k, v = qkv()
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0, 2] = valid[1, 4:] = False
    out, _ = pod_attention(layer(), q, k, v, valid)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    mask = (causal & valid[:, None])[:, None]
    torch.testing.assert_close(out, sdpa(q, k, v, attn_mask=mask))
    assert any("padding on the left" in reason for reason in stock._warned)


@pytest.mark.parametrize("cut", ["queries", "rows"])
def test_layer_that_cut_what_its_mask_was_made_for_goes_to_stock_attention(cut: str) -> None:
    q, k, v = qkv()
    mask = pod_mask(batch_size=2, q_length=6, kv_length=6)
    assert mask is not None
    want = sdpa(q, k, v, is_causal=True)
    if cut == "queries":
        got, _ = pod_attention(layer(), q[:, :, -2:], k, v, mask)
        torch.testing.assert_close(got, want[:, -2:])
    else:
        got, _ = pod_attention(layer(), q[:1], k[:1], v[:1], mask[:1])
        torch.testing.assert_close(got, want[:1])


@pytest.mark.parametrize("window", [None, 3])
def test_layer_without_a_mask_is_causal_and_windowed_in_stock_attention_too(
    window: int | None,
) -> None:
    q, k, v = qkv()
    want, _ = pod_attention(layer(), q[:, :, -4:], k, v, None, sliding_window=window)
    assert not stock._warned
    got, _ = pod_attention(
        layer(), q[:, :, -4:].requires_grad_(True), k, v, None, sliding_window=window
    )
    torch.testing.assert_close(got, want)
    assert len(stock._warned) == 1


def test_continuous_batching_without_its_cache_is_refused() -> None:
    # As a release does that hands the cache over in another way.
    with pytest.raises(UnsupportedFeatureError, match="was not prepared"):
        pod_attention(layer(), *qkv(), None, write_index=[], read_index=[])


# Keywords that say nothing new about the scores: the op's own, and lengths that the mask has too.
KNOWN = {
    *inspect.signature(pod_attention).parameters,
    *checks.SCORE_ARGUMENTS,
    *("sinks", "output_attentions", "deterministic", "position_ids"),
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
}


def test_every_argument_that_a_model_hands_to_its_attention_is_known() -> None:
    unknown: dict[str, str] = {}
    calls = 0
    for file in Path(transformers.__file__).parent.glob("models/*/modeling_*.py"):
        for call in attention_calls(file.read_text()):
            calls += 1
            unknown |= dict.fromkeys(keywords(call) - KNOWN, file.parent.name)
    assert calls > 100 and unknown == {}


def attention_calls(source: str) -> Iterator[str]:
    """What stands between the brackets of each call of an attention function."""
    for found in re.finditer(r"\battention_interface\(", source):
        depth, end = 1, found.end()
        while depth:
            depth += (source[end] in "([{") - (source[end] in ")]}")
            end += 1
        yield source[found.end() : end - 1]


def keywords(call: str) -> set[str]:
    inner, flat = "", re.sub(r"#.*", "", call)
    while inner != flat:
        inner, flat = flat, re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}", "", flat)
    return set(re.findall(r"(\w+)\s*=(?!=)", flat))
