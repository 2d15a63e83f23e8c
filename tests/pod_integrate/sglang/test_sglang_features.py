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
from pod_integrate.measure.reference import attention_reference

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


def sloped() -> torch.nn.Module:
    """A layer as SGLang's Baichuan 13B makes it: its slopes reach no attention call."""
    layer = torch.nn.Identity()
    layer.alibi_slopes = torch.ones(HEADS)
    return torch.nn.Sequential(layer)


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


def test_pool_that_was_filled_ahead_is_read_and_not_written(
    kit: SimpleNamespace, fixture: Any
) -> None:
    # SGLang's fused KV writers put a step's keys and values into the pool before attention.
    expected, _ = attend(kit, fixture)
    pool = fixture.runner.token_to_kv_pool
    before = pool.get_key_buffer(0).clone(), pool.get_value_buffer(0).clone()
    q, k, v = fixture.actual_module.project_qkv(fixture.input_hidden)
    wrong = torch.full_like(k.view(-1, KV_HEADS, DIM), torch.nan)
    layer, batch = fixture.actual_module.attn, fixture.forward_batch
    out = fixture.backend.forward(q, wrong, wrong, layer, batch, save_kv_cache=False)
    assert torch.equal(out, expected)
    assert torch.equal(pool.get_key_buffer(0), before[0])
    assert torch.equal(pool.get_value_buffer(0), before[1])


def test_unknown_argument_of_a_model_is_refused(kit: SimpleNamespace, fixture: Any) -> None:
    with pytest.raises(UnsupportedFeatureError, match="rel_bias"):
        attend(kit, fixture, rel_bias=torch.zeros(1))


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("kv_cache_dtype", torch.float8_e5m2, "--kv-cache-dtype fp8_e4m3 or auto"),
        ("use_mla_backend", True, "MLA"),
        ("spec_algorithm", SimpleNamespace(is_speculative=lambda: True), "speculative algorithm"),
        ("token_to_kv_pool", SimpleNamespace(), "SimpleNamespace"),
        ("model", sloped(), "ALiBi"),
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


def test_model_on_another_device_gets_no_backend(fixture: Any) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    fixture.runner.device = "xpu:0"
    with pytest.raises(KernelUnavailableError, match="Drop --attention-backend pod"):
        PodAttnBackend(fixture.runner)


def decode_view(fixture: Any, kv_lens: list[int], padding: int) -> Any:
    """What SGLang's decode graph runner hands over: rows 1.. of the table, then padding."""
    size = len(kv_lens) + padding
    return SimpleNamespace(
        forward_mode=SimpleNamespace(is_decode=lambda: True, is_target_verify=lambda: False),
        batch_size=size,
        seq_lens_cpu=torch.tensor([*kv_lens, *[1] * padding]),
        req_pool_indices=torch.tensor([*range(1, len(kv_lens) + 1), *[0] * padding]),
        out_cache_loc=torch.arange(1, size + 1),
        out_cache_loc_is_physical=True,
        num_padding=padding,
    )


def test_captured_decode_attends_through_the_plan_of_its_size(
    fixture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pod_integrate.engines.sglang import backend as module

    calls: list[tuple[Any, Any]] = []
    # The CPU kernel takes no plan; what reaches the op is what counts here.
    monkeypatch.setattr(
        module, "attend", lambda attention, *args, plan, **more: calls.append((attention, plan))
    )
    fixture.runner.model, layer = fixture.actual_module, fixture.actual_module.attn
    backend = module.PodAttnBackend(fixture.runner)
    backend.init_cuda_graph_state(4, 4)
    assert backend.get_cuda_graph_seq_len_fill_value() == 1
    backend.init_forward_metadata_out_graph(decode_view(fixture, [], 4), in_capture=True)
    backend.init_forward_metadata_in_graph(decode_view(fixture, [], 4))
    captured = backend.forward_metadata
    q, k, v = (torch.randn(4, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    out = backend.forward_decode(q, k, v, layer, decode_view(fixture, [], 4))
    assert out.shape == (4, HEADS * DIM)
    ((attention, plan),) = calls
    group = backend._layers[0]
    assert plan is captured.layers[group].plan.first
    assert attention.config == plan.config
    pool = fixture.runner.token_to_kv_pool
    assert torch.equal(pool.get_key_buffer(0)[1:5], k)

    backend.init_forward_metadata_out_graph(decode_view(fixture, [9, 31, 14], 1))
    replayed = backend.forward_metadata
    assert replayed.layers is captured.layers
    assert replayed.batch.kv_lens.tolist() == [9, 31, 14, 1]
    assert captured.batch.page_starts.tolist() == replayed.batch.page_starts.tolist()


def test_prefill_under_a_whole_graph_is_refused(kit: SimpleNamespace, fixture: Any) -> None:
    fixture.backend.init_cuda_graph_state(4, 4)
    with pytest.raises(UnsupportedFeatureError, match="captures decode and verify steps only"):
        fixture.backend.init_forward_metadata_out_graph(fixture.forward_batch)


def test_decode_graphs_of_several_tokens_per_request_are_refused(fixture: Any) -> None:
    with pytest.raises(UnsupportedFeatureError, match="8 tokens of 4 requests"):
        fixture.backend.init_cuda_graph_state(4, 8)


def test_shared_reads_of_a_decode_end_with_its_replay(kit: SimpleNamespace, fixture: Any) -> None:
    ends = fixture.backend.shared_read_ends
    assert ends(kit.mode.DECODE).name == "POST_REPLAY"
    assert ends(kit.mode.EXTEND).name == "UNKNOWN"


def test_output_goes_into_the_buffer_that_sglang_gives(kit: SimpleNamespace, fixture: Any) -> None:
    _, expected = attend(kit, fixture)
    given = torch.full_like(expected, torch.nan)
    fixture.forward_batch._attn_output = given
    out, _ = attend(kit, fixture)
    assert out.data_ptr() == given.data_ptr()
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)
    # Of another size, as a padded batch has: not ours to write to.
    fixture.forward_batch._attn_output = given[:-1]
    out, _ = attend(kit, fixture)
    assert out.data_ptr() != given.data_ptr()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
