"""Start-up checks: every feature POD lacks stops the server and names a way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pod_integrate.engines.sglang import checks
from pod_integrate.engines.sglang.facts import EngineFacts, LayerFacts
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError

ENGINE = EngineFacts(
    device="cpu",
    dtype=torch.float32,
    kv_cache_dtype=torch.float32,
    pool="MHATokenToKVPool",
)
UNSUPPORTED_ENGINE: list[tuple[dict[str, Any], str]] = [
    ({"mla": True}, "trtllm_mla"),
    ({"encoder_decoder": True}, "torch_native"),
    ({"alibi": True}, "transformers"),
    ({"speculative": "EAGLE"}, "--speculative-algorithm EAGLE"),
    ({"dllm": "LowConfidence"}, "--dllm-algorithm LowConfidence"),
    ({"kv_cache_dtype": torch.float8_e4m3fn}, "--kv-cache-dtype auto"),
    ({"kv_cache_dtype": torch.bfloat16}, "--kv-cache-dtype auto"),
    ({"unified_memory": True}, "--enable-unified-memory"),
    ({"hisparse": True}, "--enable-hisparse"),
    ({"pool": "SWAKVPool"}, "--disable-hybrid-swa-memory"),
    ({"pool_layout": "hnd"}, "SGLANG_USE_HND_KVCACHE"),
    ({"dcp_size": 2}, "--dcp-size 2"),
    ({"cp_size": 2}, "--attn-cp-size 2"),
    ({"pdmux": True}, "--enable-pdmux"),
    ({"two_batch_overlap": True}, "--enable-two-batch-overlap"),
    ({"mis": True}, "--enable-mis"),
    ({"prefill_graph": "full"}, "--cuda-graph-backend-prefill full"),
]
UNSUPPORTED_LAYER: list[tuple[dict[str, Any], str]] = [
    ({"is_cross_attention": True}, "cross attention"),
    ({"attn_type": "encoder_only"}, "not causal"),
    ({"attn_type": "decoder_bidirectional"}, "not causal"),
    ({"qk_head_dim": 16, "v_head_dim": 16}, "multiple of 16 in 32..256"),
    ({"qk_head_dim": 72, "v_head_dim": 72}, "multiple of 16 in 32..256"),
    ({"v_head_dim": 128}, "64 for keys, 128 for values"),
    ({"use_irope": True}, "fa3"),
    ({"xai_temperature_len": 1024}, "triton"),
    ({"logit_cap": 30.0, "logit_capping_method": "sigmoid"}, "sigmoid"),
    ({"pos_encoding_mode": "ALIBI"}, "ALIBI"),
]


def test_plain_server_and_layer_pass() -> None:
    checks.check_device("cpu")
    checks.check_device("cuda")
    checks.check_decode_graphs(8, 8)
    checks.check_engine(ENGINE)
    checks.check_layers([LayerFacts(layer_id=0), LayerFacts(layer_id=1, logit_cap=30.0)])


@pytest.mark.parametrize(("change", "expected"), UNSUPPORTED_ENGINE)
def test_unsupported_server_feature_stops_the_start(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        checks.check_engine(dataclasses.replace(ENGINE, **change))
    assert expected in str(caught.value)
    assert "backend pod does not support" in str(caught.value)


def test_every_optional_server_fact_is_covered_above() -> None:
    required = {"device", "dtype"}
    named = {name for change, _ in UNSUPPORTED_ENGINE for name in change}
    assert {field.name for field in dataclasses.fields(EngineFacts)} - required == named


@pytest.mark.parametrize(("change", "expected"), UNSUPPORTED_LAYER)
def test_unsupported_layer_stops_the_start(change: dict[str, Any], expected: str) -> None:
    layers = [LayerFacts(layer_id=0), LayerFacts(layer_id=7, **change)]
    with pytest.raises(UnsupportedFeatureError, match="attention layer 7") as caught:
        checks.check_layers(layers)
    assert expected in str(caught.value)


def test_device_without_a_kernel_stops_with_a_way_out() -> None:
    with pytest.raises(KernelUnavailableError, match="not on npu. Drop --attention-backend pod"):
        checks.check_device("npu")


def test_unknown_attention_arguments_are_refused_and_unset_ones_are_not() -> None:
    checks.check_arguments(0, {"q_rope": None, "return_lse": False})
    with pytest.raises(UnsupportedFeatureError, match="rel_bias"):
        checks.check_arguments(3, {"rel_bias": torch.zeros(1)})


def test_every_check_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "sglang.md").read_text()
    rules = (*checks._ENGINE, *checks._LAYER)
    assert [rule.feature for rule in rules if rule.feature not in guide] == []
