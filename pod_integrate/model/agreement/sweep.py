"""Checks against the POD paper's sweep (A100) and FlashInfer's published times."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from pod_integrate.model.agreement.check import Agreement, gained, percent, within
from pod_integrate.model.batches import Lengths, paper_geometry
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.floors import CASES
from pod_integrate.model.published import (
    FLASHINFER_POD,
    POD_2,
    POD_4,
    fa_serial_us,
    fa_streams_us,
    fused_us,
    time_us,
)
from pod_integrate.terms.keys import Geometry

_A100, _H100 = DEVICES["a100"], DEVICES["h100"]
# Middle of the artifact's three batch sizes (95 % of the memory for KV), by heads and context.
_BATCH_SIZES = {
    (32, 8): {4096: 109, 12288: 36, 20480: 21},
    (16, 4): {4096: 246, 12288: 81, 20480: 48},
    (32, 4): {4096: 231, 12288: 76, 20480: 45},
}
_CHUNKS = (512, 1024, 2048)
# The paper plots a case only if both ops take this share of the serial time.
_PLOTTED_SHARE = 0.2


class _Times(NamedTuple):
    """Times of one case, us."""

    prefill: float
    decode: float
    streams: float
    pod: float

    @property
    def serial(self) -> float:
        return self.prefill + self.decode

    @property
    def peak(self) -> float:
        """The paper's bound: the longer op, and a tenth of the shorter."""
        low, high = sorted((self.prefill, self.decode))
        return high + 0.1 * low


def pod_over_serial() -> Iterator[Agreement]:
    """Figure 11's sweep: 54 of its 4410 cases, less those in which one op hardly matters."""
    times = list(_sweep())
    source = f"figure 11, {len(times)} of its cases"
    yield from _gains(times, source)
    yield from _bounds(times, source)


def _gains(times: list[_Times], source: str) -> Iterator[Agreement]:
    gains = [t.serial / t.pod for t in times]
    name = "POD over FA_Serial"
    mean, best = statistics.mean(gains), max(gains)
    yield gained(f"{name}, mean", source, "+28 %", ratio=mean, low=1.18, high=1.38)
    yield gained(f"{name}, best", source, "+59 %", ratio=best, low=1.44, high=1.74)
    yield Agreement(
        f"{name}, worst",
        source,
        "never slower",
        "at least 0.99x",
        f"{min(gains):.2f}x",
        min(gains) >= 0.99,
    )


def _bounds(times: list[_Times], source: str) -> Iterator[Agreement]:
    near = sum(t.pod <= 1.1 * t.peak for t in times) / len(times)
    yield Agreement(
        "cases within 10 % of the paper's peak",
        source,
        "25 %",
        "10 % to 40 %",
        f"{near:.0%}",
        within(near, 0.10, 0.40),
    )
    streams = [t.serial / t.streams for t in times]
    gain = statistics.mean(t.serial / t.pod for t in times) - 1
    yield Agreement(
        "FA_Streams over FA_Serial",
        source,
        "at most +20 %, only where the last wave is thin",
        "best at most +25 %, mean below half of POD's gain",
        f"mean {percent(statistics.mean(streams))}, best {percent(max(streams))}",
        max(streams) <= 1.25 and statistics.mean(streams) - 1 < gain / 2,
    )


def _sweep() -> Iterator[_Times]:
    for (q_heads, kv_heads), sizes in _BATCH_SIZES.items():
        geometry = paper_geometry(q_heads, kv_heads)
        for context, decodes in sizes.items():
            for chunk in _CHUNKS:
                for position in (context // 2, context):
                    batch = f"p{chunk}@{position}+d{decodes}@{context}"
                    times = _times(Lengths.parse(batch), geometry)
                    if min(times.prefill, times.decode) >= _PLOTTED_SHARE * times.serial:
                        yield times


def _times(lengths: Lengths, geometry: Geometry) -> _Times:
    return _Times(
        prefill=fa_serial_us(lengths.prefill, geometry, _A100),
        decode=fa_serial_us(lengths.decode, geometry, _A100),
        streams=fa_streams_us(lengths, geometry, _A100),
        pod=fused_us(lengths, geometry, _A100, (POD_2, POD_4)),
    )


def flashinfer() -> Iterator[Agreement]:
    """Its POD against its two kernels; the times fit an H100's bandwidth, the post names no GPU."""
    published = {"2K": (0.51, 0.41), "4K/4K": (1.15, 0.82), "4K/8K": (1.82, 1.54)}
    published["6K/7K"] = (2.52, 1.95)
    for name, (serial_ms, pod_ms) in published.items():
        case = next(c for c in CASES if c.name == f"FlashInfer {name}")
        pod = time_us(case.lengths, case.geometry, FLASHINFER_POD, _H100)
        serial = FLASHINFER_POD.to_dict() | {"strategy": "serial"}
        two = time_us(case.lengths, case.geometry, type(FLASHINFER_POD).from_dict(serial), _H100)
        gain = serial_ms / pod_ms
        yield Agreement(
            f"FlashInfer's POD over its two kernels, {name}",
            "FlashInfer pull request 2079",
            f"{gain:.2f}x ({serial_ms} / {pod_ms} ms)",
            f"{gain - 0.12:.2f}x to {gain + 0.12:.2f}x",
            f"{two / pod:.2f}x ({two / 1e3:.2f} / {pod / 1e3:.2f} ms)",
            within(two / pod, gain - 0.12, gain + 0.12),
        )
