"""Numbers near the end of their type are refused, not wrapped into something that looks fine."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pod_integrate.errors import PageIndexError, ShapeError
from pod_integrate.measure.batches import make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((4, 2, 32), "fp32")
INT32_MAX = 2**31 - 1
# As many as torch can count the elements of.
MANY = 2**52


def endless(cache: torch.Tensor, axis: int) -> torch.Tensor:
    """A view that has one slice of the axis MANY times, in no memory of its own."""
    sizes = [MANY if i == axis else size for i, size in enumerate(cache.shape)]
    strides = [0 if i == axis else stride for i, stride in enumerate(cache.stride())]
    return cache.as_strided(sizes, strides)


@pytest.mark.parametrize("start", [2**63 - 1, 2**63 - 3, 3, -1, -(2**63)])
def test_a_page_list_that_leaves_page_indices_is_refused(start: int) -> None:
    q, k_cache, v_cache, batch = make_batch([5, 1], [20, 40], geometry=GEOMETRY, seed=0)
    batch = dataclasses.replace(batch, page_starts=torch.tensor([0, start]))
    with pytest.raises(
        PageIndexError, match=f"request 1 reads 3 page_indices from {start} on .* holds 5"
    ):
        hybrid_attention(q, k_cache, v_cache, batch)


@pytest.mark.parametrize(("axis", "page_size"), [(0, 16), (1, MANY)])
def test_more_pages_or_tokens_of_a_page_than_int32_has_are_refused(
    axis: int, page_size: int
) -> None:
    q, k_cache, v_cache, batch = make_batch([5, 1], [20, 40], geometry=GEOMETRY, seed=0)
    batch = dataclasses.replace(batch, page_size=page_size)
    pages = (MANY, 8)[axis]
    words = f"k_cache has {pages} pages of {page_size} tokens, the limit of both is {INT32_MAX}"
    with pytest.raises(ShapeError, match=words):
        hybrid_attention(q, endless(k_cache, axis), endless(v_cache, axis), batch)


def test_a_request_whose_length_wraps_is_refused() -> None:
    q, k_cache, v_cache, batch = make_batch([5, 1, 1], [20, 40, 3], geometry=GEOMETRY, seed=0)
    rows = torch.tensor([0, INT32_MAX, -2, 7], dtype=torch.int32)
    lengths = torch.full((3,), INT32_MAX, dtype=torch.int32)
    batch = dataclasses.replace(batch, q_indptr=rows, kv_lens=lengths)
    with pytest.raises(ShapeError, match=f"request 1 has q_len -{INT32_MAX + 2}"):
        hybrid_attention(q, k_cache, v_cache, batch)
