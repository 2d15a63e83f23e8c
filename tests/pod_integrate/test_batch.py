"""HybridBatch.build checks lengths and index shapes and copies nothing but the lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pod_integrate.errors import DtypeError, PageIndexError, PodAttentionError, ShapeError
from pod_integrate.terms.batch import HybridBatch

INDICES = torch.arange(12, dtype=torch.int32).view(3, 4)


def build(q_lens: Any, kv_lens: Any, **changes: Any) -> HybridBatch:
    fields: dict[str, Any] = {
        "page_indices": INDICES,
        "page_starts": [0, 4, 8][: len(q_lens)],
        "page_size": 2,
    }
    return HybridBatch.build(q_lens, kv_lens, **(fields | changes))


def test_offsets_and_counts_follow_the_lengths() -> None:
    batch = build([3, 0, 1], [3, 5, 8])
    assert batch.q_indptr.tolist() == [0, 3, 3, 4]
    assert batch.q_indptr.dtype == batch.kv_lens.dtype == torch.int32
    assert (batch.num_requests, batch.num_tokens) == (3, 4)
    assert batch.lengths == ([3, 0, 1], [3, 5, 8])
    assert str(batch.bucket) == "p4@4+d1@8"


def test_page_indices_are_read_in_place() -> None:
    batch = build([1], [2])
    assert batch.page_indices.data_ptr() == INDICES.data_ptr()
    assert batch.page_indices.shape == (12,)


def test_page_starts_tensor_is_taken_as_it_is() -> None:
    starts = torch.tensor([4], dtype=torch.int64)
    assert build([1], [2], page_starts=starts).page_starts.data_ptr() == starts.data_ptr()


def test_empty_batch_has_no_tokens() -> None:
    batch = build([], [])
    assert (batch.num_requests, batch.num_tokens, str(batch.bucket)) == (0, 0, "empty")


@pytest.mark.parametrize(
    ("q_lens", "kv_lens", "changes", "error", "words"),
    [
        ([1, 1], [1], {}, ShapeError, "got 2 and 1 requests"),
        ([[1]], [[1]], {}, ShapeError, "one-dimensional"),
        ([1.0], [1], {}, DtypeError, "q_lens must hold integers"),
        ([-1], [1], {}, ShapeError, "q_lens must be >= 0, got -1 at request 0"),
        ([1, 3], [1, 2], {}, ShapeError, "q_len 3 and kv_len 2 at request 1"),
        ([1], [2**31], {}, ShapeError, "fit int32"),
        ([1], [1], {"page_size": 0}, ShapeError, "page_size must be >= 1, got 0"),
        ([1], [1], {"page_indices": INDICES.long()}, DtypeError, "int32, got torch.int64"),
        ([1], [1], {"page_indices": INDICES[:, ::2]}, ShapeError, "contiguous"),
        ([1], [1], {"page_starts": [0, 1]}, ShapeError, r"page_starts must be \[1\]"),
        ([1], [1], {"page_starts": [-1]}, PageIndexError, "request 0 reads"),
        ([1], [9], {"page_starts": [8]}, PageIndexError, r"page_indices\[8:13\]"),
        ([1], [2], {"page_starts": [2**63 - 1]}, PageIndexError, r"indices\[\d+7:\d+8\]"),
    ],
)
def test_bad_input_names_the_place(
    q_lens: Any, kv_lens: Any, changes: dict[str, Any], error: type[PodAttentionError], words: str
) -> None:
    with pytest.raises(error, match=words):
        build(np.array(q_lens), np.array(kv_lens), **changes)
