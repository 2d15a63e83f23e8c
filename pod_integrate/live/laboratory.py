"""Laboratory: the one thread that prepares configs beside a server, and runs its experiments.

A table's config is prepared when the first step asks for it, an experiment's when the tuner sends
it. The exchange with the tuner goes on meanwhile: compiling takes minutes. Nothing is asked of the
device before the server's first live step, when it may still be capturing graphs.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable

import torch

from pod_integrate.devices.base import Device
from pod_integrate.errors import ConfigInfeasibleError, MismatchError, PodAttentionError
from pod_integrate.live.client import TunerClient
from pod_integrate.live.experimenter import Experimenter
from pod_integrate.live.failures import Failures
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.rounds import Rounds
from pod_integrate.live.verify import Lengths, NoRoomError
from pod_integrate.terms.config import PodConfig

logger = logging.getLogger(__name__)

# An event that is no failure; those of readiness.py are counted here too.
READY = "configs_ready"
# Whoever wakes it often gets a round that often.
LEAST_PAUSE_SECONDS = 0.1


class Laboratory:
    """See the module.

    groups        those of the process, asked for in every round
    failures      where events are counted
    pause         seconds between two rounds; failures double it up to a minute
    experimenter  None where no experiments are run
    """

    def __init__(
        self,
        groups: Callable[[], Iterable[LayerGroup]],
        failures: Failures,
        *,
        pause: float,
        experimenter: Experimenter | None = None,
        client: TunerClient | None = None,
    ) -> None:
        self._groups, self._failures = groups, failures
        self._rounds = Rounds(failures, pause)
        self._experimenter, self._client = experimenter, client
        self._stopping, self._awake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-laboratory", daemon=True)

    def start(self) -> None:
        """Start the thread; it is a daemon and never keeps the process alive."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to prepare or to report."""
        self._awake.set()

    def count(self, event: str) -> None:
        """Something happened to a config of a group."""
        self._failures.count(event)

    def stop(self, timeout: float = 2.0) -> None:
        """End experiments and the thread, waiting at most `timeout` seconds."""
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def run_round(self) -> None:
        """Prepare what steps want, report and ask; raises nothing, counts everything."""
        with self._rounds.one():
            try:
                groups = list(self._groups())
                for group in groups:
                    for config, lengths in group.readiness.wanted():
                        self._prepare(group, config, lengths)
                    group.readiness.look()
                if self._experimenter is not None:
                    self._experimenter.round(groups)
            except Exception:
                # The thread has to outlive our own bugs as well: they are counted and shown whole.
                self._failures.fail("laboratory_internal_error", "see the traceback")
                logger.exception("the laboratory failed unexpectedly; it goes on")

    def _prepare(self, group: LayerGroup, config: PodConfig, lengths: Lengths) -> None:
        try:
            group.readiness.prepare(config, lengths)
        except (ConfigInfeasibleError, MismatchError) as error:
            if config not in group.readiness.refused:
                group.readiness.refuse(config, str(error))
        except (PodAttentionError, NoRoomError, torch.OutOfMemoryError) as error:
            group.readiness.postpone(config)
            said = f"[{config.short()}] {type(error).__name__}: {error}"
            self._failures.fail("config_not_prepared", f"{said}; the default runs, tried again")
        except Exception:
            # Put off like a failure that may pass: others wait for this thread.
            group.readiness.postpone(config)
            self._failures.fail("config_not_prepared", f"[{config.short()}]; see the traceback")
            logger.exception("config [%s] was not prepared", config.short())
        else:
            self._failures.count(READY)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.run_round()
            self._stopping.wait(LEAST_PAUSE_SECONDS)
            self._awake.wait(self._rounds.pause_seconds)
            self._awake.clear()
        if self._experimenter is not None and not self._rounds.failed_in_row:
            self._experimenter.close()
        if self._client is not None:
            self._client.close()


def with_experiments(
    groups: Callable[[], Iterable[LayerGroup]],
    failures: Failures,
    device: Device,
    client: TunerClient,
    *,
    server: str,
    pause: float,
) -> Laboratory:
    """A laboratory whose experiments a tuner decides on; see Experimenter."""
    can_compile = functools.cache(lambda: device.can_compile)
    experimenter = Experimenter(server, client, failures, can_compile=can_compile)
    return Laboratory(groups, failures, pause=pause, experimenter=experimenter, client=client)
