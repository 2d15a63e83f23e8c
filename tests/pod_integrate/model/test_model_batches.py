"""The text form of a batch, and what is refused."""

from __future__ import annotations

import pytest

from pod_integrate.errors import ConfigError, ShapeError
from pod_integrate.model.batches import Lengths
from pod_integrate.model.devices import find_device
from pod_integrate.terms.keys import Bucket


def test_text_form_lists_chunks_and_decodes_in_order() -> None:
    lengths = Lengths.parse("p512@16k+d2@100+p3@3")
    assert lengths == Lengths((512, 1, 1, 3), (16384, 100, 100, 3))
    assert lengths.prefill == Lengths((512, 3), (16384, 3))
    assert lengths.decode == Lengths((1, 1), (100, 100))


@pytest.mark.parametrize("text", ["p1k@8k+d64@4k", "p16@32", "d128@2k"])
def test_bucket_names_are_batches_of_that_bucket(text: str) -> None:
    assert Bucket.of(*Lengths.parse(text)) == Bucket.parse(text)


@pytest.mark.parametrize("text", ["", "p512", "x1@2", "p1@1+", "d-1@4", "p1m@2m"])
def test_malformed_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ShapeError, match="p1k@8k"):
        Lengths.parse(text)


def test_chunk_longer_than_its_context_is_refused() -> None:
    with pytest.raises(ShapeError, match="q_len 512 and kv_len 100"):
        Lengths.parse("p512@100")


@pytest.mark.parametrize(("q_lens", "kv_lens"), [([1], []), ([], []), ([2], [1]), ([-1], [1])])
def test_contradicting_lists_are_refused(q_lens: list[int], kv_lens: list[int]) -> None:
    with pytest.raises(ShapeError):
        Lengths.of(q_lens, kv_lens)


def test_unknown_device_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="a100.*h200"):
        find_device("v100")
