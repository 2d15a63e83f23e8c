"""Keeps SGLang from replaying decode graphs whose kernel gave wrong answers.

A captured graph launches the tiles of its capture whatever its plans say, so a config that is
refused for its answers is not gone from it. SGLang asks its graph runner of each decode batch
whether a graph can run it; where it can be told no, such a batch is attended eagerly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pod_integrate.engines.sglang.graphs import DecodeGraphs

logger = logging.getLogger(__name__)

# Event: a step replayed a graph whose tiles gave wrong answers.
WRONG_GRAPHS = "wrong_graphs_replayed"
_REMEDY = "capture again (/update_weights_from_disk with recapture_cuda_graph) or restart"
_SIZES = ("tp_size", "pp_size", "dp_size")


class GraphGuard:
    """Looks at each live replay, and does something only once a config was found wrong.

    runner    SGLang's ModelRunner
    graphs    what it captured with this backend
    on_event  called with (event, count)
    """

    def __init__(
        self, runner: Any, graphs: DecodeGraphs, on_event: Callable[[str, int], None]
    ) -> None:
        self._runner, self._graphs, self._on_event = runner, graphs, on_event
        # Ranks must agree on graph or eager: a graph's collectives are others.
        sizes = [getattr(runner.server_args, name, 1) or 1 for name in _SIZES]
        self._alone = all(int(size) == 1 for size in sizes)
        self._guarded: Any = None
        self._told: set[int] = set()

    def replayed(self, size: int) -> None:
        """A live step of captured batch size `size` is replayed next."""
        if not self._graphs.is_wrong(size):
            return
        self._on_event(WRONG_GRAPHS, 1)
        kept = self._keep_off()
        if size not in self._told:
            self._told.add(size)
            logger.error(
                "the decode graph of %d requests launches tiles that gave wrong answers; %s",
                size, "such batches are attended eagerly from now on" if kept else _REMEDY,
            )  # fmt: skip

    def _keep_off(self) -> bool:
        """Have SGLang attend what wrong graphs would run eagerly, if it can."""
        graph_runner: Any = getattr(self._runner, "decode_cuda_graph_runner", None)
        can_run = getattr(graph_runner, "can_run_graph", None)
        if not self._alone or can_run is None:
            return False
        if self._guarded is not graph_runner:
            self._guarded = graph_runner

            def guarded(forward_batch: Any, *args: Any, **kwargs: Any) -> bool:
                if self._graphs.is_wrong(int(forward_batch.batch_size)):
                    return False
                return bool(can_run(forward_batch, *args, **kwargs))

            # Of this runner alone: a new capture makes another one, with other tiles.
            graph_runner.can_run_graph = guarded
        return True
