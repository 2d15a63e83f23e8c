"""The backend against SGLang's own attention kit: its cases, its reference, its slot layouts."""

from __future__ import annotations

import dataclasses
import unittest
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

LAYOUTS = ("contiguous", "shuffled_pages", "interleaved_pages", "non_monotonic_extend")
# The kit's own head dim is 16; the CPU kernel starts at 32.
CPU: dict[str, Any] = {"device": "cpu", "dtype": torch.float32, "head_dim": 32}
# Named here so that collecting the suite does not import SGLang; a test checks that none lacks.
KIT_CASES = (
    "mha_extend_page_size_1",
    "mha_extend_zero_prefix_exact_page",
    "mha_extend_zero_prefix_input_page_edges",
    "mha_extend_prefix_exact_page",
    "mha_extend_total_exact_page",
    "mha_extend_cross_page_boundary",
    "mha_extend_ragged_page_boundary",
    "mha_extend_page32_cross_boundary",
    "mha_decode_page_boundary",
    "mha_decode_bsz1_nonzero_prefix",
    "gqa_decode_page_boundary",
    "mqa_extend_total_exact_page",
)
# name: prefix lengths, extend lengths, other fields. Chunks come first, running requests last,
# which is the order of SGLang's mixed batches.
MIXED_CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one_chunk_one_decode": ((0, 9), (17, 1), {}),
    "chunk_with_prefix": ((16, 31, 14), (16, 1, 1), {}),
    "two_chunks_many_decodes": ((0, 7, 15, 16, 17, 30), (15, 8, 1, 1, 1, 1), {}),
    "first_token_alone": ((0, 20), (1, 1), {}),
    "page_size_1": ((3, 12, 5), (9, 1, 1), {"page_size": 1}),
    "one_kv_head": ((4, 21), (12, 1), {"num_kv_heads": 1}),
    "as_many_kv_heads": ((4, 21), (12, 1), {"num_kv_heads": 4}),
    "decode_rows_only": ((5, 16, 33), (1, 1, 1), {}),
    "window": ((4, 21, 3), (12, 1, 1), {"sliding_window_size": 4}),
}


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def window_rule(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kit asks every backend to state its rule; ours keeps key i - window, as torch_native's.
    rule = kit.dense._SWA_DECODE_EXTEND_WINDOW | {"pod"}
    monkeypatch.setattr(kit.dense, "_SWA_DECODE_EXTEND_WINDOW", rule)


def mixed_case(kit: SimpleNamespace, name: str) -> Any:
    prefix_lens, extend_lens, more = MIXED_CASES[name]
    fields = {"num_heads": 4, "num_kv_heads": 2, "page_size": 16} | more
    return kit.dense.DenseAttentionCase(
        name=f"mixed_{name}",
        backend="pod",
        forward_mode=kit.mode.EXTEND,
        prefix_lens=prefix_lens,
        extend_lens=extend_lens,
        **fields,
    )


def run(kit: SimpleNamespace, case: Any, **options: Any) -> None:
    kit.dense.run_dense_attention_case(unittest.TestCase(), case, **CPU, **options)


def test_no_case_of_the_kit_is_left_out(kit: SimpleNamespace) -> None:
    assert tuple(case.name for case in kit.dense.make_dense_cases("pod")) == KIT_CASES


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", KIT_CASES)
def test_kit_case_matches_the_kits_reference(kit: SimpleNamespace, name: str, layout: str) -> None:
    (case,) = [case for case in kit.dense.make_dense_cases("pod") if case.name == name]
    run(kit, case, loc_layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MIXED_CASES)
def test_mixed_batch_matches_the_kits_reference(
    kit: SimpleNamespace, name: str, layout: str
) -> None:
    run(kit, mixed_case(kit, name), loc_layout=layout)


def test_sliding_window_matches_the_kits_reference(kit: SimpleNamespace) -> None:
    decode = dataclasses.replace(
        mixed_case(kit, "window"),
        forward_mode=kit.mode.DECODE,
        prefix_lens=(2, 4, 5, 30),
        extend_lens=(),
    )
    for case in (
        *kit.dense.make_swa_no_prefix_input_config_cases("pod"),
        *kit.dense.make_swa_prefix_input_config_cases("pod"),
        decode,
    ):
        run(kit, case)


@pytest.mark.parametrize("breakable", [True, False])
@pytest.mark.parametrize("name", [name for name in MIXED_CASES if name != "window"])
def test_split_op_extend_on_padded_rows_matches_the_kits_reference(
    kit: SimpleNamespace, name: str, breakable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kit fills prefixes a second time here, at contiguous slots whatever the layout: with its
    # default layout even torch_native fails on a prefix over a page.
    make_loc_fn = kit.dense.make_loc_fn
    monkeypatch.setattr(
        kit.dense, "make_loc_fn", lambda layout, **sizes: make_loc_fn("contiguous", **sizes)
    )
    kit.split.run_dense_split_op_extend_case(
        unittest.TestCase(), mixed_case(kit, name), breakable=breakable, **CPU
    )
