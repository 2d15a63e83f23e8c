"""LayerGroup: the layers that share one geometry, with their config table and step log.

Every engine plug-in attends through these; what differs between engines is how a step's batch is
found and when it ends.
"""

from __future__ import annotations

import atexit
import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from pod_integrate import settings
from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig
from pod_integrate.defaults import default_config
from pod_integrate.device import device_key, kernel_build
from pod_integrate.device_plan import DevicePlan
from pod_integrate.devices.clock import Clock, Mark, clock_of
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.exchange import Channel, Exchange
from pod_integrate.keys import Dtype, Geometry
from pod_integrate.recorder import OpenStep, Recorder
from pod_integrate.redact import public_url
from pod_integrate.registry import ActiveTable

logger = logging.getLogger(__name__)

DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


class Plan(NamedTuple):
    """How one group attends one step.

    traced  the step's record, if it was sampled
    timer   of the graph that is being captured, if it is
    """

    config: PodConfig
    traced: OpenStep | None = None
    timer: GraphTimer | None = None

    def start(self, layer: int) -> Mark | None:
        """Before layer number `layer` attends; a mark for `stop` if that is timed."""
        if self.traced is not None:
            return self.traced.start_attention()
        return self.timer.start(layer) if self.timer is not None else None

    def stop(self, mark: Mark) -> None:
        """The attention that `mark` was taken for has been called."""
        if self.traced is not None:
            self.traced.stop_attention(mark)
        elif self.timer is not None:
            self.timer.stop(mark)


class LayerGroup:
    """Layers of one geometry; window and logit cap are part of it.

    layers  numbers of the layers, where the engine knows them beforehand

    The first step that runs a config with prefill rows, with decode rows, with both or as a graph
    is not traced: each is a kernel of its own, and what its first launch takes (compiling, loading,
    threads, memory touched for the first time) says nothing about the traffic.
    """

    def __init__(self, geometry: Geometry, active: ActiveTable, recorder: Recorder | None) -> None:
        self.geometry, self.active, self.recorder = geometry, active, recorder
        self.default = default_config(active.device, geometry)
        self.layers: list[int] = []
        self.open: OpenStep | None = None
        self._warm: set[tuple[PodConfig, str]] = set()

    def plan(self, batch: HybridBatch, *, live: bool) -> Plan:
        """Choose a step's config; `live` is False for warm-up batches, which leave no trace."""
        found = self.active.lookup(batch.bucket)
        config = found.config or self.default
        if self.recorder is None or not live:
            return Plan(config)
        self.close_step()
        if self._warms_up(config, batch.bucket.sides):
            self.recorder.skip()
        else:
            self.open = self.recorder.begin(batch, config, found.source)
        return Plan(config, self.open)

    def graph_timer(self, plan: DevicePlan) -> GraphTimer | None:
        """A timer for a graph to be captured with `plan`; None where nothing is recorded."""
        return None if self.recorder is None else GraphTimer(plan, self.layers)

    def replay(
        self,
        lengths: tuple[list[int], list[int]],
        config: PodConfig,
        timer: GraphTimer | None,
    ) -> int:
        """Trace a step that replays a captured graph: the stamp for its plan, 0 if it is not."""
        if self.recorder is None or timer is None:
            return 0
        self.close_step()
        if self._warms_up(config, "graph"):
            self.recorder.skip()
            return 0
        slot = timer.arm()
        read = functools.partial(timer.seconds, slot)
        self.open = self.recorder.begin_replay(
            lengths, config, layers=len(self.layers), read_graph=read
        )
        return 0 if self.open is None else slot

    def _warms_up(self, config: PodConfig, kind: str) -> bool:
        if (config, kind) in self._warm:
            return False
        self._warm.add((config, kind))
        return True

    def close_step(self) -> OpenStep | None:
        """File the open step, if there is one, and return it."""
        step, self.open = self.open, None
        if self.recorder is not None:
            if step is not None:
                self.recorder.end(step)
            else:
                self.recorder.settle()
        return step


class LayerGroups:
    """All groups of a process, and the exchange that they share when POD_ATTN_TUNER_URL is set.

    device    what the engine's model runs on
    server    id of this process for the tuner, new at each start
    reports   whether this rank records and saves; the others only follow the table
    on_event  called with (event, count) from the exchange's thread
    """

    def __init__(
        self,
        device: torch.device,
        *,
        server: str,
        reports: bool,
        on_event: Callable[[str, int], None] | None = None,
    ) -> None:
        self._settings = settings.load()
        self._build, self._device = kernel_build(device), device_key(device)
        self.clock = clock_of(device)
        self._reports = self._settings.tuner_url is not None and reports
        self._groups: dict[Geometry, LayerGroup] = {}
        self._exchange = self._start_exchange(server, on_event)

    @property
    def records(self) -> bool:
        """Whether this process records steps."""
        return self._reports and self._settings.trace_sample > 0

    def get(self, geometry: Geometry) -> LayerGroup:
        """The group of a geometry, made and announced when it is new."""
        group = self._groups.get(geometry)
        if group is None:
            group = self._groups[geometry] = self._make(geometry)
        return group

    def all(self) -> tuple[LayerGroup, ...]:
        """The groups made so far."""
        return tuple(self._groups.values())

    def end_step(self, mark: Mark) -> None:
        """File the open steps of all groups, as one step that began at `mark` of the clock."""
        end_step(self.clock, self._groups.values(), mark)

    def close(self) -> None:
        """Post what is left and end the exchange's thread."""
        if self._exchange is not None:
            atexit.unregister(self._exchange.stop)
            self._exchange.stop()

    def _make(self, geometry: Geometry) -> LayerGroup:
        active = ActiveTable(geometry, self._device, self._build)
        file = self._table_file(geometry)
        if file is not None:
            active.load_file(file)
        recorder = self._recorder() if self.records else None
        group = LayerGroup(geometry, active, recorder)
        if self._exchange is not None:
            self._exchange.add(Channel(active, recorder, file if self._reports else None))
        logger.info(
            "pod attention: kernel %s on %s, geometry %s, default config [%s], table %s, tuner %s",
            self._build,
            self._device,
            geometry,
            group.default.short(),
            f"version {active.version} from {file}" if active.version else f"none ({file or '-'})",
            public_url(self._settings.tuner_url or "none"),
        )
        return group

    def _recorder(self) -> Recorder:
        return Recorder(self.clock, sample=self._settings.trace_sample)

    def _table_file(self, geometry: Geometry) -> Path | None:
        file = self._settings.table
        # The first group has the file named by the operator, further ones a name beside it.
        if file is None or not self._groups:
            return file
        return file.with_name(f"{file.stem}.{geometry}{file.suffix}")

    def _start_exchange(
        self, server: str, on_event: Callable[[str, int], None] | None
    ) -> Exchange | None:
        url, token = self._settings.tuner_url, self._settings.tuner_token
        if url is None:
            return None
        if self._settings.table is None:
            logger.info("POD_ATTN_TABLE is unset: a restart without the tuner starts from defaults")
        exchange = Exchange(
            url,
            server=server,
            token=token.get_secret_value() if token else None,
            poll_seconds=self._settings.poll_seconds,
            on_event=on_event,
        )
        exchange.start()
        atexit.register(exchange.stop)
        return exchange


def end_step(clock: Clock, groups: Iterable[LayerGroup], mark: Mark) -> None:
    """File the open steps of `groups`, as one step that began at `mark` of their clock."""
    clock.harvest()
    steps = [group.open for group in groups if group.open is not None]
    for step in steps:
        step.open += 1
    if steps:
        clock.stop(mark, functools.partial(_end, steps))
    else:
        clock.release(mark)
    for group in groups:
        group.close_step()


def _end(steps: list[OpenStep], seconds: float | None) -> None:
    for step in steps:
        step.open -= 1
        step.ended(seconds)
