"""One SM's timeline in text, a line per CTA slot.

`P` and `p` are prefill CTAs in turn, `D` and `d` decode, `.` is idle.
"""

from __future__ import annotations

from pod_integrate.model.engine import SimulatedCta


def timeline(records: list[SimulatedCta], sm: int, seconds: float, width: int = 72) -> list[str]:
    """Lines for the slots of SM `sm`, `seconds` wide; a CTA shorter than a column may be hidden."""
    own = sorted((r for r in records if r.sm == sm), key=lambda r: (r.slot, r.begin))
    slots = max((r.slot for r in own), default=-1) + 1
    lines = []
    for slot in range(slots):
        cells = ["."] * width
        for turn, record in enumerate(r for r in own if r.slot == slot):
            letter = record.op[0].upper() if turn % 2 == 0 else record.op[0]
            first, last = (round(t / seconds * width) for t in (record.begin, record.end))
            cells[first:last] = letter * (min(last, width) - first)
        lines.append("".join(cells))
    return lines
