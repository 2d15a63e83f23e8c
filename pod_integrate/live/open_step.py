"""OpenStep: one sampled step while its layers run, until its times are known."""

from __future__ import annotations

import time
from collections.abc import Callable

from pod_integrate.devices.clock import Clock, Mark, stride_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import Source

ReadGraph = Callable[[], float | None]


class OpenStep:
    """One sampled step while its layers run, and until the clock has told how long they took.

    Of a step on a GPU some layers are timed: all have the same lengths, so the others took as long.

    read_graph  of a step that replays a captured graph, whose `layers` nobody counts here: says,
                once the step has ended, how many seconds one of them took
    """

    __slots__ = (
        "_clock",
        "_seconds",
        "_stride",
        "_timed",
        "config",
        "kv_lens",
        "layers",
        "number",
        "open",
        "q_lens",
        "read_graph",
        "source",
        "step_us",
        "time",
    )

    def __init__(
        self,
        number: int,
        lengths: tuple[list[int], list[int]],
        config: PodConfig,
        source: Source,
        clock: Clock,
        *,
        expected_layers: int = 0,
    ) -> None:
        self.time = time.time()
        self.number = number
        self.q_lens, self.kv_lens = lengths
        self.config = config
        self.source = source
        self.step_us = 0.0
        self.layers = 0
        self.read_graph: ReadGraph | None = None
        # Times that the clock still owes.
        self.open = 0
        self._clock = clock
        self._stride = stride_of(expected_layers) if clock.spares_layers else 1
        self._seconds, self._timed = 0.0, 0

    @property
    def attention_us(self) -> float:
        """Microseconds of attention in all layers; 0 when none could be timed."""
        return self._seconds / self._timed * self.layers * 1e6 if self._timed else 0.0

    def start_attention(self) -> Mark | None:
        """Count one attention call of this step; a mark for `stop_attention` if it is timed."""
        self.layers += 1
        # Another layer in every step, so that each takes its turn.
        return self._clock.start() if (self.layers + self.number) % self._stride == 0 else None

    def stop_attention(self, mark: Mark) -> None:
        """The call that `mark` was taken for has been made."""
        self.open += 1
        self._clock.stop(mark, self._attended)

    def ended(self, seconds: float | None) -> None:
        """The whole step has, after `seconds`; None: nobody knows."""
        if seconds is not None:
            self.step_us = seconds * 1e6
            layer = self.read_graph() if self.read_graph is not None else None
            if layer is not None:
                self._seconds, self._timed = layer, 1

    def _attended(self, seconds: float | None) -> None:
        self.open -= 1
        if seconds is not None:
            self._seconds += seconds
            self._timed += 1
