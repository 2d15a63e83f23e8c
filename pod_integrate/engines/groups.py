"""LayerGroup: the layers that share one geometry, with their config table and step log.

Every engine plug-in attends through these; what differs between engines is how a step's batch is
found and when it ends.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from pod_integrate import settings
from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig
from pod_integrate.defaults import default_config
from pod_integrate.device import device_key, kernel_build
from pod_integrate.exchange import Channel, Exchange
from pod_integrate.keys import Dtype, Geometry
from pod_integrate.recorder import OpenStep, Recorder
from pod_integrate.registry import ActiveTable

logger = logging.getLogger(__name__)

DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


class Plan(NamedTuple):
    """How one group attends one step; `traced` is None unless the step was sampled."""

    config: PodConfig
    traced: OpenStep | None


class LayerGroup:
    """Layers of one geometry; window and logit cap are part of it."""

    def __init__(self, geometry: Geometry, active: ActiveTable, recorder: Recorder | None) -> None:
        self.geometry, self.active, self.recorder = geometry, active, recorder
        self.default = default_config(active.device, geometry)
        self._open: OpenStep | None = None

    def plan(self, batch: HybridBatch, *, live: bool) -> Plan:
        """Choose a step's config; `live` is False for warm-up batches, which leave no trace."""
        found = self.active.lookup(batch.bucket)
        config = found.config or self.default
        if self.recorder is None or not live:
            return Plan(config, None)
        self.end_step(0.0)
        self._open = self.recorder.begin(batch, config, found.source)
        return Plan(config, self._open)

    def end_step(self, seconds: float) -> None:
        """File the open step, if there is one; seconds 0.0 says that its wall time is unknown."""
        if self._open is not None and self.recorder is not None:
            self.recorder.end(self._open, step_seconds=seconds)
        self._open = None


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

    def end_step(self, seconds: float) -> None:
        """File the open steps of all groups."""
        for group in self._groups.values():
            group.end_step(seconds)

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
        recorder = Recorder(sample=self._settings.trace_sample) if self.records else None
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
            self._settings.tuner_url or "none",
        )
        return group

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
