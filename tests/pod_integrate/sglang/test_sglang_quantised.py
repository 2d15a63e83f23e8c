"""The backend over SGLang's pool of 8 bits, written by SGLang, with the scales of a checkpoint."""

from __future__ import annotations

import unittest
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pod_integrate.engines.sglang.step import hybrid_batch
from pod_integrate.measure.batches import Case, dequantised
from pod_integrate.measure.reference import attention_reference

HEADS, KV_HEADS, DIM = 4, 2, 32
E4M3 = torch.float8_e4m3fn
SCALES: dict[str, float] = {"k_scale": 0.02, "v_scale": 0.05}


@pytest.fixture
def fixture(kit: SimpleNamespace) -> Any:
    """A chunk with a prefix and two running requests, the pool's keys and values in 8 bits."""
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    case = kit.dense.DenseAttentionCase(
        name="quantised",
        backend="pod",
        forward_mode=kit.mode.EXTEND,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        page_size=16,
        prefix_lens=(9, 31, 14),
        extend_lens=(20, 1, 1),
    )
    with torch.no_grad():
        made = kit.dense.build_dense_attention_fixture(
            unittest.TestCase(), case, head_dim=DIM, device="cpu", dtype=torch.float32
        )
        plain = made.runner.token_to_kv_pool
        pool = type(plain)(
            size=plain.size,
            page_size=plain.page_size,
            dtype=E4M3,
            head_num=KV_HEADS,
            head_dim=DIM,
            layer_num=1,
            device="cpu",
            enable_memory_saver=False,
            enable_alt_stream=False,
        )
        pool.get_key_buffer(0).copy_(plain.get_key_buffer(0) / SCALES["k_scale"])
        pool.get_value_buffer(0).copy_(plain.get_value_buffer(0) / SCALES["v_scale"])
        made.runner.token_to_kv_pool, made.runner.kv_cache_dtype = pool, E4M3
        made.backend = PodAttnBackend(made.runner)
    return made


def attend(kit: SimpleNamespace, fixture: Any) -> tuple[torch.Tensor, Case]:
    """The backend's rows, and what the op saw: q, and the pool after SGLang wrote to it."""
    layer, batch = fixture.actual_module.attn, fixture.forward_batch
    with (
        torch.no_grad(),
        kit.dense.forward_context(kit.dense.ForwardContext(attn_backend=fixture.backend)),
    ):
        q, k, v = fixture.actual_module.project_qkv(fixture.input_hidden)
        fixture.backend.init_forward_metadata(batch)
        k3, v3 = (x.view(-1, KV_HEADS, DIM).clone() for x in (k, v))
        out = fixture.backend.forward(q, k3, v3, layer, batch)
    pool = fixture.runner.token_to_kv_pool
    table = fixture.runner.req_to_token_pool.req_to_token
    keys, values = pool.get_key_buffer(0), pool.get_value_buffer(0)
    return out, Case(
        q.view(-1, HEADS, DIM), keys[:, None], values[:, None], hybrid_batch(batch, table)
    )


@pytest.mark.parametrize("scales", ["none", "checkpoint", "file"])
def test_rows_are_attention_over_what_the_pool_stands_for(
    kit: SimpleNamespace, fixture: Any, scales: str
) -> None:
    layer = fixture.actual_module.attn
    for name, value in SCALES.items():
        if scales == "checkpoint":
            # As SGLang's BaseKVCacheMethod leaves them.
            setattr(layer, name, torch.tensor(value))
            setattr(layer, f"{name}_float", value)
        elif scales == "file":
            # As models load those of --quantization-param-path.
            setattr(layer, name, value)
    out, case = attend(kit, fixture)
    exact = attention_reference(
        *dequantised(case, **(SCALES if scales != "none" else {})), scale=layer.scaling
    )
    # Values are of order 20 where nobody scales them.
    torch.testing.assert_close(out.view(-1, HEADS, DIM), exact.out.float(), atol=1e-4, rtol=1e-4)


def test_learned_things_are_filed_under_the_pools_own_dtype(fixture: Any) -> None:
    group = fixture.backend._group(fixture.actual_module.attn)
    assert (group.geometry.dtype, group.geometry.kv_dtype) == ("fp32", "e4m3")
