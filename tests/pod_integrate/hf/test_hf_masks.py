"""What a mask says must not be lost with its tag: copies on another device have none."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.masking_utils import sliding_window_causal_mask_function

from pod_integrate.engines.transformers import stock
from pod_integrate.engines.transformers.attention import pod_attention
from pod_integrate.engines.transformers.dense import DenseStep, parted, step_of, tagged, validity
from pod_integrate.engines.transformers.masks import pod_mask

WINDOW, SLOTS = 3, 9


def windowed(attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    mask: torch.Tensor | None = pod_mask(
        *(2, SLOTS, SLOTS),
        mask_function=sliding_window_causal_mask_function(WINDOW),
        local_size=WINDOW,
        attention_mask=attention_mask,
    )
    assert mask is not None and tagged(mask) is not None
    return mask


def qkv() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, heads, SLOTS, 32) for heads in (4, 2, 2))


def layer() -> torch.nn.Module:
    module = torch.nn.Module()
    module.layer_idx, module.num_key_value_groups = 0, 2  # type: ignore[assignment]
    return module


def padding() -> torch.Tensor:
    mask = torch.ones(2, SLOTS, dtype=torch.int64)
    mask[0, :4] = 0
    return mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("gradients", [False, True], ids=["op", "stock"])
def test_layer_that_names_no_window_gets_it_from_a_copied_mask(
    padded: bool, gradients: bool
) -> None:
    q, k, v = qkv()
    mask = windowed(padding() if padded else None)
    want, _ = pod_attention(layer(), q, k, v, mask)
    got, _ = pod_attention(layer(), q.requires_grad_(gradients), k, v, mask.clone())
    seen = mask[:, :SLOTS]
    torch.testing.assert_close(got[seen], want[seen])


def test_layer_that_cut_its_rows_keeps_the_window_of_its_mask() -> None:
    q, k, v = qkv()
    mask = windowed()
    want, _ = pod_attention(layer(), q, k, v, mask)
    got, _ = pod_attention(layer(), q[:1], k[:1], v[:1], mask[:1])
    torch.testing.assert_close(got, want[:1])


def test_holes_in_a_mask_of_a_window_leave_the_window_to_stock_attention() -> None:
    q, k, v = qkv()
    mask = windowed().clone()
    mask[:, 4] = 0
    near = torch.ones(SLOTS, SLOTS, dtype=torch.bool).tril().triu(1 - WINDOW)
    near[:, 4] = False
    got, _ = pod_attention(layer(), q, k, v, mask)
    want = torch.nn.functional.scaled_dot_product_attention(
        *(q, k, v), attn_mask=near, enable_gqa=True
    )
    torch.testing.assert_close(got, want.transpose(1, 2))
    assert stock.BEYOND_PADDING in stock._warned


@pytest.mark.parametrize("beyond", [0, 64])
def test_mask_of_ones_and_zeros_says_no_window(beyond: int) -> None:
    q, k, _ = qkv()
    mask = torch.cat((padding(), torch.ones(2, beyond, dtype=torch.int64)), dim=1)
    for own in (None, 5):
        step = step_of(mask, q, k, own)
        if beyond:
            assert step is None
        else:
            assert step is not None and step.window == own and step.starts == [4, 0]


@pytest.mark.parametrize(("start", "end"), [(96, 128), (10, 96), (80, 112)])
def test_mask_of_other_keys_whose_tokens_end_like_a_window_is_none(start: int, end: int) -> None:
    mask = validity(DenseStep([start], end, 1, None), 128, "cpu")
    assert parted(mask, 64)[1] is None


def test_windows_of_any_width_come_through() -> None:
    q, k, _ = qkv()
    for width in (1, 2, 4096, 2**31 - 1):
        mask = validity(DenseStep([0, 2], SLOTS, SLOTS, width), SLOTS, "cpu")
        step = step_of(mask, q, k, None)
        assert step is not None and (step.window, step.starts) == (width, [0, 2])


def test_model_whose_layers_leave_the_window_to_the_mask_keeps_it_across_devices() -> None:
    config = transformers.PhimoeConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=WINDOW,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.PhimoeForCausalLM._from_config(config, attn_implementation="sdpa").eval()
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        want = model(ids).logits
        model.set_attn_implementation("pod")
        for part in model.model.layers:
            part.register_forward_pre_hook(_moved, with_kwargs=True)
        torch.testing.assert_close(model(ids).logits, want, rtol=1e-4, atol=1e-4)


def _moved(module: torch.nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> object:
    """What accelerate does before a layer on another device."""
    return args, {**kwargs, "attention_mask": kwargs["attention_mask"].clone()}
