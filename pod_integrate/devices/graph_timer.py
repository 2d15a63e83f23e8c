"""GraphTimer: how long attention takes inside a captured graph, from stamps of its replays.

Stamps are launches of one thread around a few layers, part of the graph. Only a replay whose plan
names a row of the ring writes any; the ring is page-locked memory of the host, so that reading it
costs no copy and no wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pod_integrate.devices.clock import Mark
from pod_integrate.devices.cuda.attention import CudaAttention
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.registry import device_of

# More than there are replays under way: two, with overlapped scheduling.
SLOTS = 16
# Neighbouring layers that are timed, spread over the model: at most so many pairs, and one for so
# many layers. Stamps are two launches of one thread a layer, about 1 us of a GPU each, in every
# replay: what they cost of a decode step is to be as little in a small model as in a large one.
TIMED_PAIRS = 4
LAYERS_PER_PAIR = 8
# The first two stamps have nothing between them: what a pair costs by itself.
_EMPTY = 2


class GraphTimer:
    """Times some layers of one captured graph.

    plan    the graph's; its words name the row
    layers  numbers of the layers that attend with this plan, in their order
    """

    def __init__(self, plan: DevicePlan, layers: Sequence[int]) -> None:
        timed = [layers[place] for place in timed_positions(len(layers))]
        self._places = {layer: _EMPTY + 2 * i for i, layer in enumerate(timed)}
        self._plan = plan.words
        width = _EMPTY + 2 * len(timed)
        attention = device_of(plan.words).attention(plan.geometry, plan.config)
        assert isinstance(attention, CudaAttention), attention
        self._attention, pinned = attention, attention.runtime.pinned
        self._ring = torch.zeros((SLOTS, width), dtype=torch.int64, pin_memory=pinned)
        self._slot = 0

    def start(self, layer: int) -> Mark | None:
        """Queue the stamp of a layer's beginning; a mark for `stop` if this layer is timed."""
        place = self._places.get(layer)
        if place == _EMPTY:
            self._stamp(0)
            self._stamp(1)
        if place is not None:
            self._stamp(place)
        return place

    def stop(self, mark: Mark) -> None:
        """Queue the stamp of its end."""
        self._stamp(mark + 1)

    def arm(self) -> int:
        """A free row, from 1, for the plan of the next replay."""
        self._slot = self._slot % SLOTS + 1
        self._ring[self._slot - 1].zero_()
        return self._slot

    def seconds(self, slot: int) -> float | None:
        """One layer's time in the replay that `slot` was armed for, once that has ended.

        Mean over the timed layers; None when stamps are missing.
        """
        layers = self.each(slot)
        return sum(layers) / len(layers) if layers else None

    def each(self, slot: int) -> list[float] | None:
        """Seconds of the timed layers in their order, neighbours next to each other.

        Layers of even and of odd position take turns. None when stamps are missing.
        """
        stamps: list[int] = self._ring[slot - 1].tolist()
        if 0 in stamps or len(stamps) == _EMPTY:
            return None
        spans = [end - begin for begin, end in zip(stamps[::2], stamps[1::2], strict=True)]
        empty, *layers = spans
        return [max(0, span - empty) * 1e-9 for span in layers]

    def _stamp(self, index: int) -> None:
        self._attention.stamp(self._plan, self._ring, index)


def timed_positions(layers: int) -> list[int]:
    """Positions of the timed ones of `layers` layers: pairs of an even one and its next."""
    if layers < 2:
        return list(range(layers))
    pairs = min(TIMED_PAIRS, max(1, layers // LAYERS_PER_PAIR))
    stretch = layers // pairs
    # From the middle of a stretch: a step's first layer is not like the others.
    begins = [(i * stretch + (stretch - 1) // 2) & ~1 for i in range(pairs)]
    return [place for begin in begins for place in (begin, begin + 1)]
