"""Checks against the POD paper's own microbenchmarks (ASPLOS 2025; A100, head dim 128)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator

from pod_integrate.model.agreement.check import Agreement, gained, within
from pod_integrate.model.batches import Lengths, paper_geometry
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.published import (
    POD_2,
    POD_4,
    POD_8,
    fa_config,
    fa_serial_us,
    fa_streams_us,
    fused_us,
    time_us,
)
from pod_integrate.model.simulate import simulate
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

_A100 = DEVICES["a100"]
_YI, _LLAMA3, _LLAMA3_TP2 = paper_geometry(32, 4), paper_geometry(32, 8), paper_geometry(16, 4)
_LLAMA2 = paper_geometry(32, 32)


def wave_quantization() -> Iterator[Agreement]:
    """Figure 6: one more decode crosses the 216 CTA slots of an A100."""
    before, after = (Lengths.parse(f"p512@16k+d{n}@16k") for n in (54, 55))
    decode = _ratio(after.decode, before.decode)
    name, source = "54 to 55 decodes: serial decode", "figure 6, Yi-6B, 16K"
    yield gained(name, source, "+25 %", ratio=decode, low=1.15, high=1.35)
    name, source = "54 to 55 decodes: serial total", "figure 6, Yi-6B, chunk 512 at 16K"
    yield gained(name, source, "+17 %", ratio=_ratio(after, before), low=1.10, high=1.24)
    gains = [_over_next_best(f"p512@{context}k+d55@16k") for context in range(2, 17, 2)]
    yield Agreement(
        "55 decodes: POD over the next best",
        "figure 6, chunks of a 16K prompt",
        "up to 1.29x",
        "1.15x to 1.45x at best, never below 1x",
        f"{min(gains):.2f}x to {max(gains):.2f}x",
        within(max(gains), 1.15, 1.45) and min(gains) >= 1.0,
    )


def _ratio(after: Lengths, before: Lengths) -> float:
    return fa_serial_us(after, _YI, _A100) / fa_serial_us(before, _YI, _A100)


def _over_next_best(batch: str) -> float:
    lengths = Lengths.parse(batch)
    others = min(fa_serial_us(lengths, _YI, _A100), fa_streams_us(lengths, _YI, _A100))
    return others / fused_us(lengths, _YI, _A100, (POD_2, POD_4))


def split_limit() -> Iterator[Agreement]:
    """Table 8: prefill splits by FlashAttention's rule, and limited as the artifact does."""
    source = "table 8, Llama-3-8B TP2, chunk 512 at 16K, 64 x 16K"
    lengths = Lengths.parse("p512@16k+d64@16k")
    serial = fa_serial_us(lengths, _LLAMA3_TP2, _A100)
    # A fused kernel with split sides uses the split tiles for both and no virtual decode CTAs.
    rule = fa_config(lengths, _LLAMA3_TP2, _A100, "fused")
    vanilla = time_us(lengths, _LLAMA3_TP2, dataclasses.replace(rule, decode=rule.prefill), _A100)
    # 64 decodes x 4 KV heads fill a wave of slots, so the artifact does not split the prefill.
    unsplit = tuple(dataclasses.replace(c, max_prefill_waves=0) for c in (POD_2, POD_4))
    limited = fused_us(lengths, _LLAMA3_TP2, _A100, unsplit)
    yield Agreement(
        "limited splits < FlashAttention's splits < serial",
        source,
        "1.45 < 1.68 < 1.93 ms",
        "same order",
        f"{limited / 1e3:.2f}, {vanilla / 1e3:.2f}, {serial / 1e3:.2f} ms",
        limited < vanilla < serial,
    )
    for name, value, published, low, high in (
        ("limited splits over serial", limited, "0.73 to 0.75", 0.64, 0.84),
        ("FlashAttention's splits over serial", vanilla, "0.86 to 0.87", 0.76, 0.96),
    ):
        yield Agreement(
            name,
            source,
            published,
            f"{low} to {high}",
            f"{value / serial:.2f}",
            within(value / serial, low, high),
        )
    for name, value, published, middle in (
        ("serial time", serial, "1.93 to 1.99 ms", 1.96),
        ("limited splits, time", limited, "1.45 to 1.46 ms", 1.455),
    ):
        yield Agreement(
            name,
            source,
            published,
            f"within 15 % of {middle} ms",
            f"{value / 1e3:.2f} ms",
            within(value / 1e3, middle * 0.85, middle * 1.15),
        )


def residency() -> Iterator[Agreement]:
    """Figure 13: whole prompts of each context with decodes of that context, Llama-3-8B."""
    source = "figure 13, Llama-3-8B, batch 8 to 128"
    gains = {context: _gains_of_2(context, POD_4) for context in (1024, 16384)}
    for context, words, agrees in (
        (16384, "2 CTAs per SM faster", statistics.mean(gains[16384]) > 1.0),
        (1024, "4 CTAs per SM faster", statistics.mean(gains[1024]) < 1.0),
    ):
        yield Agreement(
            f"2 or 4 CTAs per SM at context {context}",
            source,
            words,
            f"{words} on average over batch sizes",
            "time at 4 / time at 2: " + ", ".join(f"{gain:.2f}" for gain in gains[context]),
            agrees,
        )
    contexts = (1024, 4096, 16384)
    worse = [gain for context in contexts for gain in _gains_of_2(context, POD_8)]
    yield Agreement(
        "8 CTAs per SM",
        source,
        "mostly worse",
        "slower than 2 per SM in more than half of the cases",
        f"slower in {sum(gain > 1 for gain in worse)} of {len(worse)}",
        sum(gain > 1 for gain in worse) * 2 > len(worse),
    )


def _gains_of_2(context: int, other: PodConfig) -> list[float]:
    batches = [Lengths.parse(f"p{context}@{context}+d{n}@{context}") for n in (8, 16, 32, 64, 128)]
    return [time_us(b, _LLAMA3, other, _A100) / time_us(b, _LLAMA3, POD_2, _A100) for b in batches]


def ratio() -> Iterator[Agreement]:
    """Figure 14: proportional tickets against 50:50, a whole 8K prompt and more decodes."""
    sizes = (32, 64, 96, 128, 192)
    best = 0.0
    for name, geometry in (("Yi-6B", _YI), ("Llama-3-8B", _LLAMA3)):
        gains = [_gain_of_proportional(n, geometry) for n in sizes]
        best = max(best, *gains)
        yield Agreement(
            f"proportional over 50:50, {name}",
            "figure 14, 8K prompt, batch 32 to 192",
            "gain grows with the batch",
            "gain at 192 above the gain at 32, none below 0.98x",
            ", ".join(f"{gain:.2f}x" for gain in gains),
            gains[-1] > gains[0] and min(gains) >= 0.98,
        )
    name = "proportional over 50:50, most"
    yield gained(name, "figure 14", "up to +14 %", ratio=best, low=1.07, high=1.21)


def _gain_of_proportional(decodes: int, geometry: Geometry) -> float:
    lengths = Lengths.parse(f"p8k@8k+d{decodes}@8k")
    equal = tuple(dataclasses.replace(c, prefill_ctas=1, decode_ctas=1) for c in (POD_2, POD_4))
    return fused_us(lengths, geometry, _A100, equal) / fused_us(
        lengths, geometry, _A100, (POD_2, POD_4)
    )


def decode_tile() -> Iterator[Agreement]:
    """Figure 10: decode tiles of 128 and of 16 rows, Llama-2-7B, 4K, batch 32."""
    source = "figure 10, Llama-2-7B, 32 x 4K"
    lengths = Lengths.parse("d32@4k")
    share, us = {}, {}
    for rows, kv_rows, warps in ((128, 64, 4), (16, 32, 1)):
        tile = TileConfig(q_rows=rows, kv_rows=kv_rows, stages=1, warps=warps)
        config = dataclasses.replace(
            POD_2, decode=tile, virtual_decode=4 if warps == 1 else 1, strategy="serial"
        )
        result = simulate(lengths, _LLAMA2, config, _A100)
        share[rows] = result.tensor_share * _A100.kernel_flops / _A100.tensor_flops
        us[rows] = result.us
    for rows, published, low, high in ((128, 0.70, 0.60, 0.80), (16, 0.10, 0.05, 0.15)):
        yield Agreement(
            f"compute of a decode with {rows}-row tiles",
            source,
            f"{published:.0%} of peak",
            f"{low:.0%} to {high:.0%}",
            f"{share[rows]:.0%}",
            within(share[rows], low, high),
        )
    yield Agreement(
        "bandwidth of 16-row decode tiles",
        source,
        "no loss against 128 rows",
        "at most 5 % slower",
        f"{us[16] / us[128]:.2f} of the time",
        us[16] <= 1.05 * us[128],
    )
