"""A small SVG: one band per SM, one bar per CTA, colour by op."""

from __future__ import annotations

from collections import defaultdict
from html import escape

from pod_integrate.devices.emulated.cta_records import CtaRecord

_COLOURS = ("#4c72b0", "#dd8452")
_NAMES = ("prefill", "decode")
_WIDTH, _LANE, _GAP, _LEFT, _TOP = 960, 9, 6, 56, 44


def draw(records: list[CtaRecord], title: str, sms: int) -> str:
    """SVG text of the first `sms` SMs; bars of one SM are stacked by residency slot."""
    worked = [record for record in records if record.items > 0]
    if not worked:
        return ""
    begin = min(record.begin_ns for record in worked)
    span = max(1, max(record.end_ns for record in worked) - begin)
    by_sm: dict[int, list[CtaRecord]] = defaultdict(list)
    for record in worked:
        by_sm[record.smid].append(record)
    parts: list[str] = []
    y = _TOP
    for smid in sorted(by_sm)[:sms]:
        lanes = _lanes(by_sm[smid])
        parts.append(f'<text x="{_LEFT - 6}" y="{y + _LANE}" text-anchor="end">SM {smid}</text>')
        for lane, held in enumerate(lanes):
            parts += [_bar(record, begin, span, y + lane * _LANE) for record in held]
        y += len(lanes) * _LANE + _GAP
    return _frame(parts, title, span, y)


def _lanes(records: list[CtaRecord]) -> list[list[CtaRecord]]:
    lanes: list[list[CtaRecord]] = []
    for record in sorted(records, key=lambda r: r.begin_ns):
        free = next((lane for lane in lanes if lane[-1].end_ns <= record.begin_ns), None)
        if free is None:
            lanes.append([record])
        else:
            free.append(record)
    return lanes


def _bar(record: CtaRecord, begin: int, span: int, y: int) -> str:
    x = _LEFT + (record.begin_ns - begin) / span * _WIDTH
    width = max(0.6, (record.end_ns - record.begin_ns) / span * _WIDTH - 0.3)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LANE - 1}" '
        f'fill="{_COLOURS[record.op]}"/>'
    )


def _frame(parts: list[str], title: str, span: int, height: int) -> str:
    legend = "".join(
        f'<rect x="{_LEFT + 90 * i}" y="24" width="10" height="10" fill="{colour}"/>'
        f'<text x="{_LEFT + 14 + 90 * i}" y="33">{name}</text>'
        for i, (name, colour) in enumerate(zip(_NAMES, _COLOURS, strict=True))
    )
    size = f'width="{_LEFT + _WIDTH + 20}" height="{height + 24}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="16" font-size="12">{escape(title)}</text>{legend}'
        f"{''.join(parts)}"
        f'<text x="{_LEFT}" y="{height + 12}">0</text>'
        f'<text x="{_LEFT + _WIDTH}" y="{height + 12}" text-anchor="end">{span / 1e3:.0f} us</text>'
        "</svg>\n"
    )
