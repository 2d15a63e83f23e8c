"""The backend on SGLang's objects beyond its kit: caps, sinks, padding, refusals, traces."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pod_integrate.engines.sglang.step import hybrid_batch
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError
from pod_integrate.testing.reference import attention_reference

HEADS, KV_HEADS, DIM = 4, 2, 32


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def fixture(kit: SimpleNamespace) -> Any:
    """A runner with filled pool and a mixed batch: a chunk with a prefix, two running requests."""
    case = kit.dense.DenseAttentionCase(
        name="features",
        backend="pod",
        forward_mode=kit.mode.EXTEND,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        page_size=16,
        prefix_lens=(9, 31, 14),
        extend_lens=(20, 1, 1),
    )
    return kit.dense.build_dense_attention_fixture(
        unittest.TestCase(), case, head_dim=DIM, device="cpu", dtype=torch.float32
    )


def attend(
    kit: SimpleNamespace, fixture: Any, *, pad: int = 0, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(backend's rows, float64 reference over the pool) of the fixture's batch."""
    layer, batch = fixture.actual_module.attn, fixture.forward_batch
    q, k, v = fixture.actual_module.project_qkv(fixture.input_hidden)
    padded = torch.cat([q, torch.full((pad, q.shape[1]), torch.nan)])
    with kit.dense.forward_context(kit.dense.ForwardContext(attn_backend=fixture.backend)):
        fixture.backend.init_forward_metadata(batch)
        k3, v3 = (x.view(-1, KV_HEADS, DIM) for x in (k, v))
        out = fixture.backend.forward(padded, k3, v3, layer, batch, **kwargs)
    pool = fixture.runner.token_to_kv_pool
    expected = attention_reference(
        q.view(-1, HEADS, DIM),
        pool.get_key_buffer(0).unsqueeze(1),
        pool.get_value_buffer(0).unsqueeze(1),
        hybrid_batch(batch, fixture.runner.req_to_token_pool.req_to_token),
        scale=layer.scaling,
        window_left=layer.sliding_window_size,
        logit_cap=layer.logit_cap,
        sinks=kwargs.get("sinks"),
    )
    return out, expected.out.view(-1, HEADS * DIM).float()


def test_logit_cap_and_window_of_the_layer_are_applied(kit: SimpleNamespace, fixture: Any) -> None:
    plain, _ = attend(kit, fixture)
    layer = fixture.actual_module.attn
    # A new id: a layer's geometry is read once.
    layer.logit_cap, layer.sliding_window_size = 0.05, 6
    fixture.backend._layers.clear()
    out, expected = attend(kit, fixture)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(out, plain, atol=1e-3)


def test_sinks_join_the_softmax(kit: SimpleNamespace, fixture: Any) -> None:
    out, expected = attend(kit, fixture, sinks=torch.linspace(-1, 3, HEADS))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_padding_rows_beyond_the_batch_give_zeros(kit: SimpleNamespace, fixture: Any) -> None:
    out, expected = attend(kit, fixture, pad=3)
    torch.testing.assert_close(out[:-3], expected, atol=1e-5, rtol=1e-5)
    assert out[-3:].eq(0).all()


def test_layer_that_shares_kv_reads_the_cache_only(kit: SimpleNamespace, fixture: Any) -> None:
    attend(kit, fixture)
    before = fixture.runner.token_to_kv_pool.get_key_buffer(0).clone()
    q, _, _ = fixture.actual_module.project_qkv(fixture.input_hidden)
    layer, batch = fixture.actual_module.attn, fixture.forward_batch
    out = fixture.backend.forward(q, None, None, layer, batch)
    assert out.shape == q.shape
    assert torch.equal(before, fixture.runner.token_to_kv_pool.get_key_buffer(0))


def test_unknown_argument_of_a_model_is_refused(kit: SimpleNamespace, fixture: Any) -> None:
    with pytest.raises(UnsupportedFeatureError, match="rel_bias"):
        attend(kit, fixture, rel_bias=torch.zeros(1))


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("kv_cache_dtype", torch.float8_e4m3fn, "--kv-cache-dtype auto"),
        ("use_mla_backend", True, "MLA"),
        ("spec_algorithm", SimpleNamespace(is_speculative=lambda: True), "speculative decoding"),
        ("token_to_kv_pool", SimpleNamespace(), "SimpleNamespace"),
    ],
)
def test_real_runner_with_an_unsupported_feature_gets_no_backend(
    fixture: Any, attribute: str, value: Any, expected: str
) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    setattr(fixture.runner, attribute, value)
    with pytest.raises(UnsupportedFeatureError, match=expected):
        PodAttnBackend(fixture.runner)


def test_model_with_an_unsupported_layer_gets_no_backend(fixture: Any) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    fixture.actual_module.attn.is_cross_attention = True
    fixture.runner.model = fixture.actual_module
    with pytest.raises(UnsupportedFeatureError, match="attention layer 0"):
        PodAttnBackend(fixture.runner)


def test_gpu_model_gets_no_backend_in_this_release(fixture: Any) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    fixture.runner.device = "cuda:0"
    with pytest.raises(KernelUnavailableError, match="Drop --attention-backend pod"):
        PodAttnBackend(fixture.runner)
