"""LayerGroups: all layer groups of a process, with their config tables and step logs.

Every engine plug-in attends through these; what differs between engines is how a step's batch is
found and when it ends.
"""

from __future__ import annotations

import atexit
import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from pod_integrate import settings
from pod_integrate.devices.base import Device
from pod_integrate.devices.clock import Clock, Mark
from pod_integrate.live import shipped
from pod_integrate.live.budget import Budget
from pod_integrate.live.client import TunerClient
from pod_integrate.live.exchange import Channel, Exchange
from pod_integrate.live.experiments import Experiments
from pod_integrate.live.failures import Failures
from pod_integrate.live.laboratory import Laboratory, with_experiments
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.open_step import OpenStep
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable, geometry_of_file
from pod_integrate.redact import public_url
from pod_integrate.terms.keys import Geometry

logger = logging.getLogger(__name__)


class LayerGroups:
    """All groups of a process, and the exchange that they share when POD_ATTN_TUNER_URL is set.

    device    what the engine's model runs on
    server    id of this process for the tuner, new at each start
    reports   whether this rank records, saves and runs experiments; the others only follow the
              table
    on_event  called with (event, count) from the exchange's thread
    batch_invariant  as of LayerGroup; tables and the tuner are off then, a warning says so
    """

    def __init__(
        self,
        device: Device,
        *,
        server: str,
        reports: bool,
        on_event: Callable[[str, int], None] | None = None,
        batch_invariant: bool = False,
    ) -> None:
        self._batch_invariant = batch_invariant
        self._settings = _without_tuning() if batch_invariant else settings.load()
        self.device, self.clock = device, device.clock()
        # Once for all groups: a table is taken for the device as it was at the start.
        self._build, self._key = device.kernel_build, device.key
        self._reports = self._settings.tuner_url is not None and reports
        self._groups: dict[Geometry, LayerGroup] = {}
        self._exchange = self._start_exchange(server, on_event)
        self._laboratory = self._start_laboratory(server, on_event)

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
        """Post what is left and end the threads."""
        if self._laboratory is not None:
            atexit.unregister(self._laboratory.stop)
            self._laboratory.stop()
        if self._exchange is not None:
            atexit.unregister(self._exchange.stop)
            self._exchange.stop()

    def _make(self, geometry: Geometry) -> LayerGroup:
        device = self.device
        active = ActiveTable(geometry, self._key, self._build)
        if self._settings.shipped_tables:
            shipped.lay_beneath(active)
        file = self._table_file(geometry)
        if file is not None:
            active.load_file(file)
        recorder = self._recorder() if self.records else None
        group = LayerGroup(
            *(geometry, active, recorder, device),
            batch_invariant=self._batch_invariant,
            clock=self.clock,
            experiments=Experiments(Budget(self._settings.experiments))
            if self._experiments
            else None,
        )
        if self._laboratory is not None:
            group.readiness.wake = self._laboratory.wake
            group.readiness.count = self._laboratory.count
        if self._exchange is not None:
            self._exchange.add(Channel(active, recorder, file if self._reports else None))
        logger.info(
            "pod attention: kernel %s on %s, geometry %s, default config [%s], table %s, "
            "%d shipped buckets, tuner %s",
            self._build,
            self._key,
            geometry,
            group.default.short(),
            f"version {active.version} from {file}" if active.version else f"none ({file or '-'})",
            active.shipped,
            public_url(self._settings.tuner_url or "none"),
        )
        return group

    @property
    def _experiments(self) -> bool:
        """Whether this process runs experiments."""
        return self._reports and self._settings.experiments > 0

    def _recorder(self) -> Recorder:
        return Recorder(self.clock, sample=self._settings.trace_sample)

    def _table_file(self, geometry: Geometry) -> Path | None:
        """The file that the operator named where it is of this geometry, else one beside it.

        The first group takes a file that has no table yet. Processes of other models may name it
        too: none of them overwrites what another one saved.
        """
        file = self._settings.table
        if file is None:
            return None
        owner = geometry_of_file(file)
        if geometry == owner or (owner is None and not self._groups):
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

    def _start_laboratory(
        self, server: str, on_event: Callable[[str, int], None] | None
    ) -> Laboratory | None:
        url, token = self._settings.tuner_url, self._settings.tuner_token
        ships = self._settings.shipped_tables and shipped.are_of(self._key)
        if url is None and self._settings.table is None and not ships:
            return None
        secret = token.get_secret_value() if token else None
        failures = Failures(url or "none", [secret] if secret else [], on_event)
        pause = self._settings.poll_seconds
        if url is not None and self._experiments:
            client = TunerClient(url, token=secret)
            laboratory = with_experiments(
                *(self.all, failures, self.device, client), server=server, pause=pause
            )
        else:
            laboratory = Laboratory(self.all, failures, pause=pause)
        laboratory.start()
        atexit.register(laboratory.stop)
        return laboratory


def _without_tuning() -> settings.Settings:
    found = settings.load()
    if found.tuner_url or found.table:
        logger.warning(
            "deterministic inference runs one config for every step: POD_ATTN_TUNER_URL and "
            "POD_ATTN_TABLE are not used"
        )
    return found.model_copy(update={"tuner_url": None, "table": None, "shipped_tables": False})


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
