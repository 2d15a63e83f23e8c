"""Attention of a stock engine: parts by hand, and the steps that one served."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import _results, step_fit
from benchmarks.gpu.engines.serving_summary import device_called
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.estimate import work_of
from pod_integrate.model.stock import Shares, stock_us
from pod_integrate.terms.keys import Geometry

H200 = DEVICES["h200"]
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SHARES = Shares(alone=0.8, beside=0.5, tail=2.0, last=1.5)


def us(q_lens: list[int], kv_lens: list[int]) -> float:
    return stock_us(q_lens, kv_lens, GEOMETRY, H200, SHARES)


def test_work_is_of_prompts_and_of_keys_that_decodes_read() -> None:
    found = work_of([512, 1, 1], [1024, 100, 300], GEOMETRY)
    assert found.flops == 4 * 128 * 32 * (512 * 512 + 512 * 513 / 2)
    assert found.read == 2 * 2 * 128 * 8 * 400 and found.decodes == 2


def test_decodes_beside_a_prefill_read_at_a_rate_of_their_own() -> None:
    prefill, decodes = us([512], [8192]), [16_384] * 33
    both = us([512] + [1] * 33, [8192, *decodes])
    # 264 pairs of a request and a KV head: two whole rounds of 132 SMs.
    alone = us([1] * 33, decodes)
    # The last pair is read by one SM, at 1.5 times its share of the bandwidth.
    assert both - prefill == pytest.approx(alone * 0.8 / 0.5 + alone * 0.8 / 2 / 1.5)


def test_keys_of_8_bits_are_read_as_slowly_as_of_16() -> None:
    narrow = dataclasses.replace(GEOMETRY, kv_dtype="e4m3")

    def both(q_lens: list[int], kv_lens: list[int]) -> tuple[float, float]:
        times = [stock_us(q_lens, kv_lens, one, H200) for one in (narrow, GEOMETRY)]
        return times[0], times[1]

    half, whole = both([1] * 33, [16_384] * 33)
    assert half == pytest.approx(whole)
    half, whole = both([512], [8192])
    assert half < 0.75 * whole


def test_a_last_round_that_fills_few_sms_runs_at_what_they_draw() -> None:
    even = us([1] * 33, [16_384] * 33) / 33
    # 160 pairs: 28 of them, 3.5 requests, last twice as fast as in a whole round of SMs.
    assert us([1] * 20, [16_384] * 20) == pytest.approx(16.5 * even + 16.5 * even / 2)
    # 84 of 216 pairs saturate the memory again, and as few as 48 are split.
    for requests in (27, 6):
        assert us([1] * requests, [16_384] * requests) == pytest.approx(requests * even)


def test_steps_that_were_served_are_told_better_than_at_the_best_rates() -> None:
    """Each run by constants that were fitted to others over its dtype, where there are any."""
    document = json.loads((_results.RESULTS / "gpu_serving.json").read_text())
    device = device_called(document["gpu"])
    assert device is H200
    stock = document["load"]["stock"]
    runs = {
        name: step_fit.samples(run, stock, device, stride=9)
        for name, run in document["runs"].items()
    }
    found = step_fit.left_out(runs, device)
    assert {"llama3-8b, arxiv", "llama3-8b, pd", "yi-6b, arxiv"} <= set(found)
    for name, one in found.items():
        assert one["error"] < 0.75 * one["plain_error"], name
    for size, shipped in step_fit.SHIPPED.items():
        own = [one for steps in runs.values() for one in steps if one.key_bytes == size]
        assert own and step_fit.error(own, device, shipped) < 0.06, size
