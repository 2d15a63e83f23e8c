"""Whatever stock attention differentiates, `pod` gives the same derivative of: it is passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.engines import hf_models
from pod_integrate.engines.transformers import stock
from pod_integrate.engines.transformers.attention import pod_attention

KINDS = {"llama": "sdpa", "gpt_oss": "eager"}


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_warned", set())


def pair(name: str = "llama") -> tuple[Any, Any]:
    """The same frozen model on stock attention and on `pod`."""
    theirs, ours = (
        hf_models.build(name, kind).requires_grad_(False) for kind in (KINDS[name], "pod")
    )
    return theirs, ours


def batch(name: str = "llama") -> dict[str, torch.Tensor]:
    ids, mask = hf_models.padded(hf_models.random_prompts((40, 29)))
    # Eager attention spreads rows of padding over all keys; nothing to compare there.
    return {"input_ids": ids} | ({} if name == "gpt_oss" else {"attention_mask": mask})


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("llama", ("layers.0.self_attn.q_proj",)),
        ("llama", ("layers.0.self_attn.k_proj",)),
        ("llama", ("layers.0.self_attn.v_proj",)),
        ("llama", ("layers.0.self_attn.v_proj", "layers.1.self_attn.q_proj")),
        ("gpt_oss", ("layers.0.self_attn.sinks",)),
        ("gpt_oss", ("layers.0.self_attn.v_proj",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_partly_frozen_model_gets_the_gradients_of_stock_attention_exactly(
    name: str, trainable: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    gradients: list[dict[str, torch.Tensor | None]] = []
    with caplog.at_level(logging.WARNING, logger=stock.__name__):
        for model in pair(name):
            chosen = {
                path: weight
                for path, weight in model.named_parameters()
                if any(part in path for part in trainable)
            }
            for weight in chosen.values():
                weight.requires_grad_(True)
            inputs = batch(name)
            model(**inputs, labels=inputs["input_ids"]).loss.backward()
            gradients.append({path: weight.grad for path, weight in chosen.items()})
    want, got = gradients
    assert len(want) >= len(trainable)
    for path, gradient in want.items():
        assert gradient is not None and gradient.abs().max() > 0, path
        other = got[path]
        assert other is not None and torch.equal(other, gradient), path
    assert [record.message.count("gradients are on") for record in caplog.records] == [1]


def test_frozen_layers_below_the_trainable_one_stay_on_the_op(op_calls: list[int]) -> None:
    gradients = []
    for model in pair():
        weight = model.model.layers[1].self_attn.k_proj.weight.requires_grad_(True)
        inputs = batch()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append(weight.grad)
    assert len(op_calls) == 1
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("learned", ["keys", "values"])
def test_learned_prefix_in_the_cache_gets_the_gradient_of_stock_attention(
    name: str, learned: str
) -> None:
    gradients = []
    for model in pair(name):
        torch.manual_seed(2)
        prefix = torch.randn(2, 2, 1, 2, 5, 32)  # layer, K and V, [B, Hkv, S, D]
        prefix.requires_grad_(True)
        cache = transformers.DynamicCache(config=model.config)
        for index in range(2):
            k, v = (
                part if part_name == learned else part.detach()
                for part_name, part in zip(("keys", "values"), prefix[index], strict=True)
            )
            cache.update(k, v, index)
        ids = torch.tensor(hf_models.random_prompts((17,)))
        model(ids, past_key_values=cache).logits.square().sum().backward()
        gradients.append(prefix.grad)
    want, got = gradients
    assert want is not None and want.abs().max() > 0
    assert got is not None and torch.equal(want, got)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_gradients_of_stock_attention(reentrant: bool) -> None:
    gradients = []
    for model in pair():
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        embeds = model.get_input_embeddings()(batch()["input_ids"]).requires_grad_(True)
        model.model.layers[0].self_attn.v_proj.weight.requires_grad_(True)
        model(inputs_embeds=embeds, labels=batch()["input_ids"], use_cache=False).loss.backward()
        gradients.append((embeds.grad, model.model.layers[0].self_attn.v_proj.weight.grad))
    # A reentrant one runs its first forward without gradients, on the op: equal up to rounding.
    for got, want in zip(*gradients, strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want)


def layer() -> torch.nn.Module:
    module = torch.nn.Module()
    module.layer_idx, module.num_key_value_groups = 0, 2  # type: ignore[assignment]
    return module


def qkv(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(*shape, 2, heads, 6, 32) for heads in (4, 2, 2))
    return q, k, v


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )
    return out.transpose(1, 2)


def pod(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    out: torch.Tensor = pod_attention(layer(), q, k, v, mask)[0]
    return out


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_input_that_requires_a_gradient_is_enough(which: int, op_calls: list[int]) -> None:
    gradients = []
    for attention in (sdpa, pod):
        inputs = qkv()
        inputs[which].requires_grad_(True)
        attention(*inputs).square().sum().backward()
        gradients.append(inputs[which].grad)
    torch.testing.assert_close(*gradients)
    assert not op_calls


def test_learned_mask_gets_the_gradient_of_stock_attention() -> None:
    gradients = []
    for attention in (sdpa, pod):
        mask = torch.linspace(-1, 1, 36).view(1, 1, 6, 6).requires_grad_(True)
        q, k, v = qkv()
        attention(q, k, v, mask).square().sum().backward()
        gradients.append(mask.grad)
    torch.testing.assert_close(*gradients)


def _func_grad(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    q, k, v = qkv()
    with torch.no_grad():
        # functorch switches gradients on inside.
        result: torch.Tensor = torch.func.grad(lambda x: attention(q, k, x).square().sum())(v)
    return result


def _func_jvp(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    q, k, v = qkv()
    with sdpa_kernel(SDPBackend.MATH):  # the other ones have no forward-mode derivative
        result: torch.Tensor = torch.func.jvp(lambda x: attention(q, x, v), (k,), (v,))[1]
    return result


def _vmap(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    result: torch.Tensor = torch.func.vmap(attention)(*qkv(3))
    return result


def _dual(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    q, k, v = qkv()
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        out = attention(q, forward_ad.make_dual(k, v), v)
        tangent: torch.Tensor = forward_ad.unpack_dual(out).tangent
    return tangent


def _traced(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    traced = torch.jit.trace(attention, tuple(qkv()), check_trace=False)
    # Another length than it was traced with.
    result: torch.Tensor = traced(*(torch.cat([t, t], dim=2) for t in qkv()))
    return result


def _compiled(attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    q, k, v = qkv()
    v.requires_grad_(True)
    torch.compile(attention, backend="eager")(q, k, v).square().sum().backward()
    assert v.grad is not None
    return v.grad


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("transform", [_func_grad, _func_jvp, _vmap, _dual, _traced, _compiled])
def test_transform_of_torch_sees_stock_attention(
    transform: Callable[..., torch.Tensor], op_calls: list[int]
) -> None:
    torch.testing.assert_close(transform(pod), transform(sdpa))
    assert not op_calls and len(stock._warned) == 1


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_op_runs_whatever_requires_them(
    guard: Callable[[], Any], op_calls: list[int]
) -> None:
    inputs = [tensor.requires_grad_(True) for tensor in qkv()]
    with guard():
        got = pod(*inputs)
        torch.testing.assert_close(got, sdpa(*inputs))
    assert op_calls and not stock._warned


def test_autocast_gives_the_dtype_of_stock_attention(op_calls: list[int]) -> None:
    # As models have it: rotary embeddings leave q and k in fp32, v comes from a bf16 product.
    q, k, v = qkv()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = (attention(q, k, v.bfloat16()) for attention in (pod, sdpa))
    assert op_calls and got.dtype == want.dtype == torch.bfloat16
    exact = sdpa(q, k, v)
    assert (got - exact).abs().max() <= 2 * (want - exact).abs().max() + 1e-3
