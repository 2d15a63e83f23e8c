"""Start-up checks: every feature POD lacks stops the server and names a way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pod_integrate.devices.registry import limits_of
from pod_integrate.engines.sglang import checks, layer_rules, rules, speculation_rules
from pod_integrate.engines.sglang.alternatives import Machine, way_out
from pod_integrate.engines.sglang.facts import EngineFacts, LayerFacts
from pod_integrate.engines.sglang.speculation import Speculation
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError

ENGINE = EngineFacts(
    limits=limits_of("cpu"),
    has_graphs=False,
    dtype=torch.float32,
    kv_cache_dtype=torch.float32,
    pool="MHATokenToKVPool",
)
CPU = Machine()
H100 = Machine((9, 0), flashinfer=True)
B200 = Machine((10, 0), flashinfer=True)
# Of a GPU: bf16, half a table.
ON_GPU: dict[str, Any] = {"limits": limits_of("cuda"), "has_graphs": True}
GPU: dict[str, Any] = {**ON_GPU, "dtype": torch.bfloat16, "kv_cache_dtype": torch.bfloat16}
HEAD_DIMS = limits_of("cpu").head_dims
HALF: dict[str, Any] = {"table_rows": 1024, "table_columns": 1 << 20}
BIG_TABLE = {**GPU, "table_rows": 2049, "table_columns": (1 << 20) + 4}
INVARIANT = {"deterministic": True}
# Changes, and what the message says on an H100 and on a CPU; None where that machine has no such
# server.
UNSUPPORTED_ENGINE: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"mla": True}, "flashinfer or triton", "unset or .* torch_native$"),
    ({"alibi": True}, "transformers and its own", "transformers and its own"),
    ({"masked_images": True}, "l or use --attention-backend triton$", "p --enable-multimodal$"),
    ({"encoder_decoder": True}, "flashinfer or torch_native", "backend torch_native$"),
    ({"dllm": "LowConfidence"}, "flashinfer$", "no backend of SGLang is known"),
    ({"kv_cache_dtype": torch.float8_e5m2}, "e4m3 or auto or .* flashinfer", "torch_native$"),
    (ON_GPU, "--dtype bfloat16 or use .* triton", None),
    ({"unified_memory": True}, "drop the flag or .* triton$", "drop the flag$"),
    ({"hisparse": True}, "--enable-hisparse; drop the flag$", "--enable-hisparse; drop the flag$"),
    ({"pool": "SWAKVPool of MLATokenToKVPool"}, "leave --attention", "leave --attention"),
    ({"pool": "HybridLinearKVPool"}, "HybridLinearKVPool; leave", "HybridLinearKVPool; leave"),
    ({"pool_layout": "hnd"}, "hnd; unset SGLANG_USE_HND_KVCACHE$", "SGLANG_USE_HND_KVCACHE$"),
    (BIG_TABLE, "--max-running-requests to 2046 or less", None),
    ({**GPU, "table_rows": 2, "table_columns": 1 << 31}, "; lower --context-length", None),
    ({"table_rows": 1, "table_columns": 1 << 31}, None, "; lower --context-length$"),
    ({"pool_slots": 1 << 31}, "; lower --max-total-tokens$", "; lower --max-total-tokens$"),
    ({**GPU, "pool_slots": 1, "pool_bytes": 1 << 36}, "; lower --max-total-tokens$", None),
    ({"dcp_size": 2}, "--dcp-size 2; set it to 1$", "--dcp-size 2; set it to 1$"),
    ({"cp_size": 2}, "--attn-cp-size 2; set it to 1 or .* fa3$", "--attn-cp-size 2; set it to 1$"),
    ({"pdmux": True}, "--enable-pdmux; drop the flag", "--enable-pdmux; drop the flag"),
    ({"two_batch_overlap": True}, "overlap; drop the flag$", "overlap; drop the flag$"),
    ({"mis": True}, "drop the flag or .* flashinfer$", "--enable-mis; drop the flag$"),
    ({"prefill_graph": "full"}, "prefill full; pass `breakable`", "prefill full; pass `breakable`"),
    ({"torch_compile": True}, None, "CPU graphs: .* --enable-torch-compile; drop the flag$"),
    ({**GPU, "torch_compile": True}, "a GPU: .* --enable-torch-compile; drop the flag$", None),
    (INVARIANT, "size unset; pass --chunked-prefill-size -1 or .* fa3 or triton$", "size -1$"),
    ({**INVARIANT, "chunked_prefill_size": 8192}, "size 8192; pass", "size 8192; pass"),
]
EAGLE = Speculation(algorithm="EAGLE", draft_tokens=4)
_BESIDE = " or use --speculative-attention-mode decode --decode-attention-backend fa3 or flashinfer"
UNSUPPORTED_SPECULATION: list[tuple[dict[str, Any], str, str]] = [
    (
        {"drafts": True, "verifies": False},
        "drop --speculative-algorithm or use --speculative-draft-attention-backend fa3",
        "drop --speculative-algorithm$",
    ),
    ({"algorithm": "DFLASH"}, "DFLASH; choose one of EAGLE.*" + _BESIDE, "NGRAM$"),
    ({"eagle_topk": 4}, "topk 4; pass --speculative-eagle-topk 1" + _BESIDE, "topk 1$"),
    ({"algorithm": "NGRAM"}, "branch; pass --speculative-num-draft-tokens 2" + _BESIDE, " 2$"),
    ({"adaptive": True}, "adaptive; drop the flag" + _BESIDE, "drop the flag$"),
    ({"plan_stream": True}, "PLAN_STREAM; unset it$", "PLAN_STREAM; unset it$"),
]
UNSUPPORTED_LAYER: list[tuple[dict[str, Any], str, str]] = [
    ({"is_cross_attention": True}, "flashinfer or torch_native", "torch_native"),
    ({"attn_type": "encoder_only"}, "triton or torch_native", "backend torch_native"),
    ({"attn_type": "decoder_bidirectional"}, "triton$", "no backend of SGLang"),
    ({"qk_head_dim": 16, "v_head_dim": 16}, "a multiple of 16 in 32..256", "backend torch_native"),
    ({"qk_head_dim": 72, "v_head_dim": 72}, "a multiple of 16 in 32..256", "backend torch_native"),
    ({"v_head_dim": 128}, "64 for keys, 128 for values", "backend torch_native"),
    ({"use_irope": True}, "fa3$", "no backend of SGLang"),
    ({"xai_temperature_len": 1024}, "triton$", "no backend of SGLang"),
    ({"logit_cap": 30.0, "logit_capping_method": "sigmoid"}, "sigmoid; use .* triton$", "sigmoid"),
    ({"in_window_pool": True}, "size -1; pass --disable-hybrid-swa-memory", "hybrid-swa-memory"),
    (
        {"in_window_pool": False, "sliding_window_size": 7},
        "size 7; pass --disable-hybrid-swa-memory",
        "hybrid-swa-memory",
    ),
    ({"pos_encoding_mode": "ALIBI"}, "ALIBI; use .* flashinfer$", "ALIBI"),
]

EVERY_RULE: list[rules.Rule[Any]] = [
    *rules.ENGINE,
    *speculation_rules.SPECULATION,
    *layer_rules.LAYER,
]


def layer_facts(layer_id: int, **change: Any) -> LayerFacts:
    return LayerFacts(layer_id=layer_id, head_dims=HEAD_DIMS, **change)


def test_plain_server_and_layer_pass() -> None:
    checks.check_device("cpu")
    checks.check_device("cuda")
    checks.check_decode_graphs(8, 8, speculates=False)
    checks.check_decode_graphs(8, 32, speculates=True)
    checks.check_engine(ENGINE, CPU)
    checks.check_engine(dataclasses.replace(ENGINE, **GPU, **HALF), H100)
    checks.check_layers([layer_facts(0), layer_facts(1, logit_cap=30.0)], CPU)
    windows = {"in_window_pool": True, "sliding_window_size": 15}
    checks.check_engine(dataclasses.replace(ENGINE, pool="SWAKVPool"), CPU)
    checks.check_layers([layer_facts(0, **windows), layer_facts(1, in_window_pool=False)], CPU)
    whole = dataclasses.replace(ENGINE, deterministic=True, chunked_prefill_size=-1)
    checks.check_engine(whole, CPU)
    # What the CPU kernel counts in 64 bits.
    large = dataclasses.replace(
        ENGINE, table_rows=1 << 20, table_columns=1 << 20, pool_bytes=1 << 40
    )
    checks.check_engine(large, CPU)


@pytest.mark.parametrize(("change", "on_gpu", "on_cpu"), UNSUPPORTED_ENGINE)
def test_unsupported_server_feature_stops_the_start(
    change: dict[str, Any], on_gpu: str | None, on_cpu: str | None
) -> None:
    for machine, expected in ((H100, on_gpu), (CPU, on_cpu)):
        if expected is not None:
            message = r"backend pod does not support .*" + expected
            with pytest.raises(UnsupportedFeatureError, match=message):
                checks.check_engine(dataclasses.replace(ENGINE, **change), machine)


def speculating(**change: Any) -> EngineFacts:
    return dataclasses.replace(ENGINE, speculation=dataclasses.replace(EAGLE, **change))


@pytest.mark.parametrize(("change", "on_gpu", "on_cpu"), UNSUPPORTED_SPECULATION)
def test_unsupported_speculation_stops_the_start(
    change: dict[str, Any], on_gpu: str, on_cpu: str
) -> None:
    for machine, expected in ((H100, on_gpu), (CPU, on_cpu)):
        with pytest.raises(UnsupportedFeatureError, match=r"does not support .*" + expected):
            checks.check_engine(speculating(**change), machine)


@pytest.mark.parametrize("algorithm", ["EAGLE", "EAGLE3", "NEXTN", "STANDALONE"])
def test_chains_are_verified(algorithm: str) -> None:
    checks.check_engine(speculating(algorithm=algorithm), H100)


def test_drafts_of_one_ngram_token_are_verified() -> None:
    checks.check_engine(speculating(algorithm="NGRAM", draft_tokens=2, eagle_topk=10), H100)


@pytest.mark.parametrize(
    "change",
    [{"algorithm": "DFLASH"}, {"eagle_topk": 4}, {"adaptive": True}, {"plan_stream": True}],
)
def test_prefills_are_served_beside_any_backend_that_verifies(change: dict[str, Any]) -> None:
    checks.check_engine(speculating(verifies=False, **change), H100)


def test_drafts_are_not_verified_over_a_pool_of_windows() -> None:
    facts = dataclasses.replace(speculating(), pool="SWAKVPool")
    with pytest.raises(UnsupportedFeatureError, match="--disable-hybrid-swa-memory"):
        checks.check_engine(facts, H100)


def test_deterministic_inference_does_not_speculate() -> None:
    facts = dataclasses.replace(speculating(), deterministic=True, chunked_prefill_size=-1)
    with pytest.raises(UnsupportedFeatureError, match="drop one of them$"):
        checks.check_engine(facts, H100)


@pytest.mark.parametrize(("tokens", "speculates"), [(32, False), (12, True)])
def test_graphs_of_other_widths_are_refused(tokens: int, speculates: bool) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"wants {tokens} tokens of 8 requests"):
        checks.check_decode_graphs(8, tokens, speculates=speculates)


def test_every_server_rule_is_covered_above() -> None:
    facts = [dataclasses.replace(ENGINE, **change) for change, _, _ in UNSUPPORTED_ENGINE]
    facts += [speculating(**change) for change, _, _ in UNSUPPORTED_SPECULATION]
    facts.append(dataclasses.replace(speculating(), deterministic=True))
    facts.append(dataclasses.replace(speculating(), pool="SWAKVPool"))
    every = [*rules.ENGINE, *speculation_rules.SPECULATION]
    assert [r.feature for r in every if not any(r.applies(f) for f in facts)] == []


@pytest.mark.parametrize(("change", "on_gpu", "on_cpu"), UNSUPPORTED_LAYER)
def test_unsupported_layer_stops_the_start(
    change: dict[str, Any], on_gpu: str, on_cpu: str
) -> None:
    layers = [layer_facts(0), layer_facts(7, **change)]
    for machine, expected in ((H100, on_gpu), (CPU, on_cpu)):
        with pytest.raises(UnsupportedFeatureError, match=f"attention layer 7.*{expected}"):
            checks.check_layers(layers, machine)


def test_head_dim_of_the_cpu_kernel_alone_is_refused_on_a_gpu() -> None:
    layer = layer_facts(3, qk_head_dim=80, v_head_dim=80)
    checks.check_layers([layer], CPU)
    layer = dataclasses.replace(layer, head_dims=limits_of("cuda").head_dims)
    with pytest.raises(UnsupportedFeatureError, match="80, not one of 64, 96, 128, 256; use"):
        checks.check_layers([layer], H100)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda r: r.feature)
def test_refusals_on_a_cpu_name_no_backend_of_gpus(rule: rules.Rule[Any]) -> None:
    own = rule.own if isinstance(rule.own, str) else rule.own(ENGINE)
    words = set(way_out(CPU, own, rule.serving, rule.flag).replace(",", " ").split())
    assert words.isdisjoint({"triton", "flashinfer", "fa3", "trtllm_mha", "trtllm_mla"})


def test_a_gpu_offers_what_its_generation_and_packages_have() -> None:
    every = ("fa3", "trtllm_mha", "flashinfer", "triton", "torch_native")
    assert [b for b in every if B200.has(b)] == [b for b in every if b != "fa3"]
    assert [b for b in every if H100.has(b)] == [b for b in every if b != "trtllm_mha"]
    assert not dataclasses.replace(H100, flashinfer=False).has("flashinfer")
    assert [b for b in every if CPU.has(b)] == ["torch_native"]


def test_device_without_a_kernel_stops_with_a_way_out() -> None:
    with pytest.raises(KernelUnavailableError, match="not on npu. Drop --attention-backend pod"):
        checks.check_device("npu")


def test_unknown_attention_arguments_are_refused_and_unset_ones_are_not() -> None:
    checks.check_arguments(0, {"q_rope": None, "return_lse": False})
    with pytest.raises(UnsupportedFeatureError, match="rel_bias"):
        checks.check_arguments(3, {"rel_bias": torch.zeros(1)})


def test_every_check_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "sglang.md").read_text()
    every = [rule.feature for rule in EVERY_RULE]
    assert [feature for feature in every if feature not in guide] == []
