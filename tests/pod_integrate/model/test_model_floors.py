"""Floors reproduce the published table of all twelve cases, to its printed digits."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pod_integrate.errors import DtypeError
from pod_integrate.model.batches import Lengths, paper_geometry, visible_pairs
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.floors import CASES, CaseSpec, cost_of, ideal_floor, real_floor

# GFLOP, GB; per GPU ms: ideal prefill and decode, real prefill and decode, largest speed-up.
TABLE = """
98.8 2.013 | 0.317 0.987 0.449 1.097 1.41 | 0.100 0.601 0.165 0.668 1.25 | 0.100 0.419 0.165 0.466 1.35
618.5 5.536 | 1.982 2.715 2.811 3.017 1.93 | 0.625 1.653 1.031 1.836 1.56 | 0.625 1.153 1.031 1.282 1.80
1099.6 6.291 | 3.524 3.086 4.998 3.428 1.69 | 1.111 1.878 1.833 2.087 1.88 | 1.111 1.311 1.833 1.456 1.79
67.6 2.147 | 0.217 1.053 0.307 1.170 1.26 | 0.068 0.641 0.113 0.712 1.16 | 0.068 0.447 0.113 0.497 1.23
135.3 1.812 | 0.434 0.889 0.615 0.987 1.62 | 0.137 0.541 0.225 0.601 1.38 | 0.137 0.377 0.225 0.419 1.54
135.3 1.845 | 0.434 0.905 0.615 1.006 1.61 | 0.137 0.551 0.225 0.612 1.37 | 0.137 0.384 0.225 0.427 1.53
549.8 2.147 | 1.762 1.053 2.499 1.170 1.47 | 0.556 0.641 0.916 0.712 1.78 | 0.556 0.447 0.916 0.497 1.54
549.8 4.295 | 1.762 2.106 2.499 2.340 1.94 | 0.556 1.282 0.916 1.425 1.64 | 0.556 0.895 0.916 0.994 1.92
34.4 1.074 | 0.110 0.527 0.156 0.585 1.27 | 0.035 0.321 0.057 0.356 1.16 | 0.035 0.224 0.057 0.249 1.23
137.5 2.147 | 0.441 1.053 0.625 1.170 1.53 | 0.139 0.641 0.229 0.712 1.32 | 0.139 0.447 0.229 0.497 1.46
137.5 4.295 | 0.441 2.106 0.625 2.340 1.27 | 0.139 1.282 0.229 1.425 1.16 | 0.139 0.895 0.229 0.994 1.23
393.3 4.295 | 1.260 2.106 1.788 2.340 1.76 | 0.397 1.282 0.655 1.425 1.46 | 0.397 0.895 0.655 0.994 1.66
""".strip().splitlines()  # noqa: E501


@pytest.mark.parametrize(
    ("case", "line"), list(zip(CASES, TABLE, strict=True)), ids=[case.name for case in CASES]
)
def test_floor_of_a_published_case(case: CaseSpec, line: str) -> None:
    totals, *devices = line.split("|")
    cost = cost_of(case.lengths, case.geometry)
    assert [f"{cost.prefill_flops / 1e9:.1f}", f"{cost.decode_bytes / 1e9:.3f}"] == totals.split()
    for name, numbers in zip(("a100", "h100", "h200"), devices, strict=True):
        ideal, real = (f(cost, DEVICES[name]) for f in (ideal_floor, real_floor))
        us = (ideal.prefill_us, ideal.decode_us, real.prefill_us, real.decode_us)
        printed = [f"{value / 1e3:.3f}" for value in us] + [f"{real.max_speedup:.2f}"]
        assert printed == numbers.split(), name


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1), st.integers(-1, 45))
def test_visible_pairs_equal_a_count_over_the_mask(
    requests: list[tuple[int, int]], window: int
) -> None:
    pairs = [
        sum(
            key <= row and (window < 0 or key >= row - window)
            for row in range(past, past + q_len)
            for key in range(past + q_len)
        )
        for q_len, past in requests
    ]
    q_lens, kv_lens = zip(*((q_len, past + q_len) for q_len, past in requests), strict=True)
    assert visible_pairs(q_lens, kv_lens, window).tolist() == pairs


def test_fused_floor_lies_between_the_longer_op_and_both() -> None:
    for case in CASES:
        floor = real_floor(cost_of(case.lengths, case.geometry), DEVICES["a100"])
        assert max(floor.prefill_us, floor.decode_us) <= floor.fused_us <= floor.serial_us


def test_a_cache_of_bytes_is_read_in_half_the_time_and_multiplied_in_as_much() -> None:
    geometry = paper_geometry(8, 8)
    plain = cost_of(Lengths.parse("p64@128+d2@256"), geometry)
    of_bytes = cost_of(
        Lengths.parse("p64@128+d2@256"), dataclasses.replace(geometry, kv_dtype="e4m3")
    )
    assert 2 * of_bytes.decode_bytes == plain.decode_bytes > 0
    assert of_bytes._replace(decode_bytes=plain.decode_bytes) == plain


def test_values_that_the_gpu_kernel_does_not_take_are_refused() -> None:
    geometry = dataclasses.replace(paper_geometry(8, 8), dtype="fp32", kv_dtype="fp32")
    with pytest.raises(DtypeError, match="fp32"):
        cost_of(Lengths.parse("d1@16"), geometry)
