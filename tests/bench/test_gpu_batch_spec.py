"""vLLM's grammar of batches, ragged batches made of it, and what peers are told of them."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.peers import fa3, flashinfer, paged, xqa
from benchmarks.gpu.speed.batch_spec import SETS, parse, published, spec_of, tiny
from benchmarks.gpu.speed.cases import (
    Part,
    default_of,
    make_case,
    part_of,
    rows_of,
)
from pod_integrate.errors import ShapeError
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference

MACHINE = Emulator()
RAGGED = "q257_7q1s1057_3q4s2051_2q129s4093"


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        ("q2k", [(2048, 2048)]),
        ("8q1s1k", [(1, 1024)] * 8),
        ("q1ks2k", [(1024, 2048)]),
        ("2q1k_3q1s1k", [(1024, 1024)] * 2 + [(1, 1024)] * 3),
        ("q1s4k_16q4s1000", [(1, 4096)] + [(4, 1000)] * 16),
    ],
)
def test_a_batch_has_the_requests_that_its_text_names(
    text: str, requests: list[tuple[int, int]]
) -> None:
    assert list(zip(*parse(text), strict=True)) == requests
    lengths = spec_of(text).lengths
    ones = [q_len == 1 for q_len in lengths.q_lens]
    assert ones == sorted(ones) and sorted(zip(*lengths, strict=True)) == sorted(requests)


@pytest.mark.parametrize("text", ["", "q", "k2q", "2k", "0q1", "q0", "q2k__q1", "q2ms4", "q4s2 "])
def test_what_is_no_batch_is_refused_by_name(text: str) -> None:
    with pytest.raises(ShapeError, match="malformed at .*expected parts like q2k"):
        parse(text)
    with pytest.raises(ShapeError, match="q_len 1024 and kv_len 512"):
        parse("q2_q1ks512")


def test_published_batches_are_13_and_9_with_the_heads_of_four_models() -> None:
    standard, mix = (published(name) for name in SETS)
    assert len(standard) == 13 and len(mix) == 36
    assert len({spec.name for spec in [*standard, *mix]}) == 49
    assert {(spec.heads, spec.page_size) for spec in standard} == {("32/8/128", 16)}
    assert list(dict.fromkeys(spec.heads for spec in mix)) == [
        *("32/8/128", "16/1/64", "16/8/256", "32/32/96")
    ]
    assert max(spec.lengths.kv_lens[0] for spec in standard) == 8192


@pytest.mark.parametrize("part", ["all", "prefill", "decode"])
def test_a_part_of_a_ragged_batch_has_the_values_that_it_has_there(part: Part) -> None:
    spec = tiny(spec_of(RAGGED))
    case = make_case(spec, MACHINE.device)
    want = attention_reference(*case)[0][rows_of(spec, part)]
    mine = part_of(case, spec, part)
    assert mine.q.shape == want.shape and mine.batch.num_requests < 5
    got = MACHINE.attend(mine, default_of(MACHINE, spec)).out
    assert float((got.double() - want.double()).abs().max()) < BF16_TOLERANCE


@pytest.mark.parametrize("part", ["all", "prefill", "decode"])
def test_calls_of_flash_attention_3_name_the_part_that_they_answer(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(spec_of(RAGGED))
    case = make_case(spec, MACHINE.device)

    def attend(q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, **of: Any) -> Any:
        assert of["causal"] and of["page_table"].is_contiguous()
        counts = torch.tensor([len(row) for row in of["page_table"]])
        q_lens = of["cu_seqlens_q"].diff()
        assert int(q_lens.max()) == of["max_seqlen_q"]
        batch = type(case.batch).build(
            q_lens.tolist(),
            of["cache_seqlens"].tolist(),
            page_indices=of["page_table"],
            page_starts=(counts.cumsum(0) - counts).tolist(),
            page_size=spec.page_size,
        )
        return attention_reference(q, k_cache, v_cache, batch)[0]

    module = types.SimpleNamespace(flash_attn_with_kvcache=attend)
    monkeypatch.setitem(sys.modules, "sgl_kernel", types.ModuleType("sgl_kernel"))
    monkeypatch.setitem(sys.modules, "sgl_kernel.flash_attn", module)
    got = fa3.attention(part)(case, spec)()
    assert torch.equal(got, attention_reference(*case)[0][rows_of(spec, part)])


def test_xqa_is_told_pages_and_lengths_of_the_decodes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = tiny(spec_of(RAGGED))
    case = make_case(spec, MACHINE.device)
    told: dict[str, Any] = {}

    def attend(**of: Any) -> torch.Tensor:
        told.update(of)
        counts = torch.tensor([len(row) for row in of["block_tables"]])
        batch = type(case.batch).build(
            [1] * len(of["query"]),
            of["seq_lens"].tolist(),
            page_indices=of["block_tables"],
            page_starts=(counts.cumsum(0) - counts).tolist(),
            page_size=spec.page_size,
        )
        k_cache, v_cache = of["kv_cache"]
        return attention_reference(of["query"], k_cache, v_cache, batch)[0]

    module = types.SimpleNamespace(xqa_batch_decode_with_kv_cache=attend)
    monkeypatch.setitem(sys.modules, "flashinfer", types.ModuleType("flashinfer"))
    monkeypatch.setitem(sys.modules, "flashinfer.decode", module)
    got = xqa.decode(case, spec)()
    assert torch.equal(got, attention_reference(*case)[0][rows_of(spec, "decode")])
    assert told["max_seq_len"] == int(told["seq_lens"].max()) and told["kv_layout"] == "NHD"
    assert told["bmm1_scale"] == spec.head_dim**-0.5
    # Semaphores start at 0, and no partial result of another call is left.
    assert not told["workspace_buffer"].any()
    assert told["block_tables"].is_contiguous()


def test_flashinfer_is_told_of_several_chunks_and_of_ragged_decodes() -> None:
    spec = spec_of("q20s40_2q1s33_q4s17_q1s16")
    case = make_case(spec, MACHINE.device)
    pages = {part: flashinfer._pages(case, spec, part) for part in ("prefill", "decode", "all")}
    assert pages["prefill"].qo_indptr.tolist() == [0, 20, 24]
    assert pages["prefill"].kv_indptr.tolist() == [0, 3, 5]
    assert pages["decode"].last_page_len.tolist() == [1, 1, 16]
    assert pages["decode"].kv_indptr.tolist() == [0, 3, 6, 7]
    both = torch.cat([pages["prefill"].kv_indices, pages["decode"].kv_indices])
    assert torch.equal(both, pages["all"].kv_indices)


def test_peers_that_would_have_to_compile_first_are_left_out_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = types.SimpleNamespace(
        FLASHINFER_JIT_DIR=tmp_path / "ops", FLASHINFER_AOT_DIR=tmp_path / "aot"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "flashinfer" or None)
    monkeypatch.setitem(sys.modules, "flashinfer", types.ModuleType("flashinfer"))
    monkeypatch.setitem(sys.modules, "flashinfer.jit", types.SimpleNamespace(env=env))

    def names(head_dim: int, compiling: bool = False) -> list[str]:
        return [found.name for found in paged.ready(tmp_path, head_dim, compiling=compiling)]

    assert names(64) == [] and len(names(64, compiling=True)) == 7
    assert names(96, compiling=True) == []
    for built in (
        "ops/batch_prefill_with_kv_cache_q_head_dim_qk_64_v_sm90",
        "aot/batch_decode_with_kv_cache_q_head_dim_qk_64_v",
        "ops/batch_decode_with_kv_cache_q_head_dim_qk_256_v",
    ):
        library = tmp_path / built / f"{Path(built).name}.so"
        library.parent.mkdir(parents=True)
        library.touch()
    hopper = "flashinfer prefill fa3"
    assert names(64) == [hopper, "flashinfer decode, no tensor cores", f"{hopper}, all rows"]
    assert names(128) == []
    tried = {"flashinfer decode": {"outcome": "ok"}, "flashinfer prefill fa3": {"outcome": "no"}}
    (tmp_path / "peers.json").write_text(json.dumps({"peers": tried}))
    assert names(128) == ["flashinfer decode"] and len(names(64)) == 3
