"""Readiness: which configs a group's steps may run, and how one gets there.

A config is built, loaded, launched and verified by a thread that serves nobody; then its first use
for each kind of step is a shadow. Until both are done the default runs. What fails is refused for
the life of the process. Nothing is compiled or loaded in a step, and the driver is asked nothing.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable

import torch

from pod_integrate.devices.base import Device
from pod_integrate.devices.call import Attention
from pod_integrate.devices.clock import Clock
from pod_integrate.errors import ConfigInfeasibleError, MismatchError
from pod_integrate.live.builds import Builds
from pod_integrate.live.shadow import Shadow, Verdict
from pod_integrate.live.verify import LEAST_BYTES, Lengths, NoRoomError, verify
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0
# Configs beside the default that are kept ready; those prepared longest ago go first, and are
# prepared again when a step asks for them. A table and the experiments of a process have fewer.
MOST_READY = 256
# Events: answers that differ or what cannot run here; of these the former; memory was too short to
# try a config.
REFUSED, WRONG, NO_ROOM = "configs_refused", "configs_wrong", "configs_without_memory"


class Readiness:
    """Of one group's configs; the serving thread asks, another one prepares.

    default  always ready
    clock    of the serving thread
    builds   compiles what `prepare` loads
    """

    def __init__(
        self, device: Device, geometry: Geometry, default: PodConfig, clock: Clock
    ) -> None:
        self._device, self._geometry, self._clock = device, geometry, clock
        self.default = device.attention(geometry, default)
        self._ready: dict[PodConfig, Attention] = {default: self.default}
        self._proven: set[tuple[PodConfig, str]] = set()
        self.refused: dict[PodConfig, str] = {}
        # Those of the refused whose answers differed from the default's.
        self.wrong: set[PodConfig] = set()
        self._wanted: dict[PodConfig, Lengths] = {}
        self._not_before: dict[PodConfig, float] = {}
        # One is enough: there is one shadow at a time.
        self._told: torch.Tensor | None = None
        self._shadow: Shadow | None = None
        # As of the last look, and whether a step was to try a config since then.
        self._room, self._asked = True, False
        # Called when there is something to prepare, and with events of this module.
        self.wake: Callable[[], None] = lambda: None
        self.count: Callable[[str], None] = lambda event: None
        self.builds = Builds(lambda c: device.build(geometry, c), lambda: self.wake())

    @property
    def owed(self) -> bool:
        """Whether a verdict has yet to come from the clock."""
        return self._shadow is not None and self._shadow.begun

    def usable(self, config: PodConfig, kind: str) -> Attention | None:
        """What runs `config` in a step of this kind, None while it may not."""
        if config == self.default.config:
            return self.default
        return self._ready.get(config) if (config, kind) in self._proven else None

    def verified(self, config: PodConfig) -> Attention | None:
        """What runs `config`, None while its answers were not compared with the default's."""
        return self._ready.get(config)

    def want(self, config: PodConfig, lengths: Lengths) -> None:
        """Have a config prepared, unless it is, or has been refused or put off."""
        if config in self.refused or config in self._ready or config in self._wanted:
            return
        if time.monotonic() >= self._not_before.get(config, 0.0):
            self._wanted[config] = lengths
            self.wake()

    def approach(self, config: PodConfig, kind: str, lengths: Lengths) -> Shadow | None:
        """A step towards using `config`, which is not usable: a shadow for this step, or nothing.

        One shadow at a time; a config that is not prepared yet is wanted from now on.
        """
        # One that never ran belonged to a step that failed.
        if config in self.refused or self.owed:
            return None
        attention = self._ready.get(config)
        if attention is None:
            self.want(config, lengths)
            return None
        self._asked = True
        if not self._room:
            return None
        assert self._told is not None, "what is prepared has a place for its verdict"
        judge = functools.partial(self._judge, config, kind)
        self._shadow = Shadow(attention, self._clock, self._told, judge)
        return self._shadow

    def _judge(self, config: PodConfig, kind: str, said: Verdict) -> None:
        self._shadow = None
        if said == "differs":
            reason = f"its answers differ from the default's on a live {kind} step"
            self.refuse(config, reason, wrong=True)
        elif said == "alike":
            self._proven.add((config, kind))
        elif said == "no room":
            self._room = False

    def refuse(self, config: PodConfig, reason: str, *, wrong: bool = False) -> None:
        """Never run `config` in this process.

        wrong  its answers differed, so that its kernel is not to be trusted either
        """
        self.refused[config] = reason
        if wrong:
            self.wrong.add(config)
            self.count(WRONG)
        self._wanted.pop(config, None)
        self._drop(config)
        self.count(REFUSED)
        logger.error("config [%s] is not used any more: %s", config.short(), reason)

    def look(self) -> None:
        """Ask for the memory that is free, where steps would try a config; for the other thread."""
        if not self._asked:
            return
        self._asked = False
        with self._device.background():
            spare = self._device.spare_bytes()
        self._room = spare is None or spare >= LEAST_BYTES
        if not self._room:
            self.count(NO_ROOM)

    def wanted(self) -> list[tuple[PodConfig, Lengths]]:
        """What to prepare; for the other thread."""
        return list(self._wanted.items())

    def is_built(self, config: PodConfig) -> bool:
        """Whether `prepare` would not wait for a compiler, which goes to work if it would.

        For the other thread; raises as Device.build.
        """
        return config in self._ready or config in self.refused or self.builds.is_built(config)

    def prepare(self, config: PodConfig, lengths: Lengths, *, again: bool = False) -> Attention:
        """Build, load, launch and verify `config` unless that is done; takes seconds.

        again  verify it on fresh inputs whatever was done before

        For the other thread, after the first live step of the process. Raises as Device.build, and
        MismatchError, also for what was found wrong before; NoRoomError when it should be tried
        again later.
        """
        if config in self.refused:
            kind = MismatchError if config in self.wrong else ConfigInfeasibleError
            raise kind(f"{config.short()} was refused: {self.refused[config]}")
        found = self._ready.get(config)
        if found is None:
            self.builds.wait(config)
        if found is None or (again and found is not self.default):
            with self._device.background():
                found = self._device.attention(self._geometry, config)
                self._verify(config, lengths)
                if self._told is None:
                    self._told = self._device.landing()
        self._keep(config, found)
        self._wanted.pop(config, None)
        return found

    def _keep(self, config: PodConfig, attention: Attention) -> None:
        if attention is self.default:
            return
        # In the order of their last preparation.
        self._ready.pop(config, None)
        self._ready[config] = attention
        for oldest in list(self._ready)[1 : -MOST_READY or None]:
            self._drop(oldest)

    def _drop(self, config: PodConfig) -> None:
        self._ready.pop(config, None)
        self._proven -= {place for place in self._proven if place[0] == config}

    def _verify(self, config: PodConfig, lengths: Lengths) -> None:
        seed = int.from_bytes(os.urandom(4))
        try:
            verify(self._device, self._geometry, config, lengths, seed=seed)
        except MismatchError as error:
            self.refuse(config, str(error), wrong=True)
            raise
        except NoRoomError:
            self.count(NO_ROOM)
            raise

    def postpone(self, config: PodConfig) -> None:
        """Preparing `config` failed for a reason that may pass: no step wants it for a while."""
        now = time.monotonic()
        self._not_before = {c: until for c, until in self._not_before.items() if until > now}
        self._not_before[config] = now + _AGAIN_SECONDS
        self._wanted.pop(config, None)
