"""One comparison of the model with what was published.

Each check names its source and its criterion; both were written before the model was first run on
it. No constant of the model is fitted to any of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Agreement(NamedTuple):
    """One published comparison.

    published  what the source says
    criterion  when the model counts as agreeing
    model      what the model says
    """

    name: str
    source: str
    published: str
    criterion: str
    model: str
    agrees: bool


def gained(
    name: str, source: str, published: str, *, ratio: float, low: float, high: float
) -> Agreement:
    """How a ratio agrees that the criterion holds between two others, all told as `+17 %`."""
    criterion = f"{percent(low)} to {percent(high)}"
    return Agreement(name, source, published, criterion, percent(ratio), within(ratio, low, high))


def within(value: float, low: float, high: float) -> bool:
    """Whether low <= value <= high."""
    return low <= value <= high


def percent(ratio: float) -> str:
    """Ratio 1.17 as `+17 %`."""
    return f"{100 * (ratio - 1):+.0f} %"
