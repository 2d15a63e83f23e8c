"""The comparison of two conformance runs tells wrong answers from equal ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.conformance import CPU, SMS, Sections

from benchmarks.gpu.correctness import conformance
from benchmarks.gpu.correctness.conformance_run import Inputs, Library, bits, floats


def test_a_target_without_warpgroup_instructions_skips_them_and_says_so(
    inputs: Inputs, dumped: Sections
) -> None:
    later = ("wgmma", "registers", "stmatrix", "mbarrier", "box", "map")
    lacks = {name for name in dumped if any(word in name for word in later)}
    got = {name: words[:0] if name in lacks else words for name, words in dumped.items()}
    assert set(conformance.lacking(got, dumped)) == lacks
    verdicts = conformance.compare(got, dumped, inputs, SMS)
    assert set(verdicts) == set(dumped) - lacks
    assert all(verdict.equal for verdict in verdicts.values())
    assert set(conformance.skipped(got, dumped)) == {name.split(":")[0] for name in lacks}


def test_a_schedule_changes_nothing_that_is_compared(
    library: Library, inputs: Inputs, dumped: Sections
) -> None:
    library.configure_emulator(num_sms=SMS, order=2, copies=1, seed=9)
    verdicts = conformance.compare(library.run(inputs, CPU), dumped, inputs, SMS)
    assert all(verdict.equal for verdict in verdicts.values()), verdicts
    assert all(conformance.by_wrapper(verdicts).values())


WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ldmatrix_x4": lambda words: words ^ 1,
    "stmatrix_x4_trans": lambda words: words.roll(4),
    "mma_m16n8k16:bf16": lambda words: bits(floats(words) + 1.0),
    "ex2": lambda words: bits(floats(words) * (1 + 2.0**-20)),
    "lg2": lambda words: bits(floats(words) * 1.0001),
    "rcp": lambda words: words + 3,
    "pack2:fp16": lambda words: words + 1,
    "cp_async_16:zero": lambda words: words | 1,
    "atomic_add:old": lambda words: words // 2,
    "smid": lambda words: words + 4096,
    "globaltimer": lambda words: words.flip(0),
    "wgmma_ss:bf16_n128": lambda words: bits(floats(words) * (1 + 2.0**-12)),
    "stmatrix_x2_trans": lambda words: words.roll(4),
    "wgmma_ss:fp16_n8": lambda words: words.roll(1),
    "wgmma_ss:fp16_n16": lambda words: words.roll(1),
    "wgmma_ss_transposed:bf16_n16": lambda words: bits(floats(words) * (1 + 2.0**-12)),
    "wgmma_rs:fp16_n256": lambda words: words.roll(1),
    "fence_proxy_async": lambda words: bits(floats(words) + 1.0),
    "mbarrier_expect": lambda words: words + 1,
    "copy_box": lambda words: words.roll(4),
    "copy_box:product": lambda words: bits(floats(words) + 1.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_told_apart(name: str, inputs: Inputs, dumped: Sections) -> None:
    broken = {**dumped, name: WRONG[name](dumped[name])}
    verdicts = conformance.compare(broken, dumped, inputs, SMS)
    assert [n for n, verdict in verdicts.items() if not verdict.equal] == [name]


def test_sums_of_products_of_every_width_may_be_rounded_otherwise(
    inputs: Inputs, dumped: Sections
) -> None:
    products = [name for name in dumped if name.startswith(("mma_m16n8k16", "wgmma_s", "wgmma_r"))]
    assert {int(name.rpartition("_n")[2]) for name in products if "_n" in name} >= {8, 16, 256}
    # A unit in the last place of what is no exact sum.
    rounded = {
        name: torch.where((words & 0xFFF) != 0, words ^ 1, words)
        for name, words in dumped.items()
        if name in products
    }
    assert all(not torch.equal(words, dumped[name]) for name, words in rounded.items())
    verdicts = conformance.compare({**dumped, **rounded}, dumped, inputs, SMS)
    assert [name for name, verdict in verdicts.items() if not verdict.equal] == []
