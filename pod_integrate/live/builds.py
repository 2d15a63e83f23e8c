"""Builds: compiles configs beside a server, a few at a time, in threads of low priority."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from pod_integrate.terms.config import PodConfig

# Servers go first; compilers are children of these threads and inherit it.
_NICE = 10
# What is built already takes no longer to find.
_FIND_SECONDS = 0.05
# At a time: a quarter of the machine's cores, and no more than a few hundred MB of compilers.
MOST_BUILDS = 4


class Builds:
    """For the thread of a laboratory, which goes on meanwhile.

    build  of one config, called in another thread
    wake   called when one is over that nobody waited for
    """

    def __init__(self, build: Callable[[PodConfig], None], wake: Callable[[], None]) -> None:
        self._build, self._wake = build, wake
        cores = len(os.sched_getaffinity(0))
        self._most = max(1, min(MOST_BUILDS, cores // 4))
        self._running: dict[PodConfig, threading.Thread] = {}
        self._over: dict[PodConfig, BaseException | None] = {}

    def is_built(self, config: PodConfig) -> bool:
        """Whether nothing is left to compile; if there is, that begins now or when others end.

        Raises what compiling raised, once: the next call tries it again.
        """
        self._running = {c: t for c, t in self._running.items() if t.is_alive()}
        if config not in self._over and config not in self._running:
            if len(self._running) >= self._most:
                return False
            thread = threading.Thread(target=self._run, args=(config,), name="pod-build")
            thread.daemon = True
            self._running[config] = thread
            thread.start()
            thread.join(_FIND_SECONDS)
        if config not in self._over:
            return False
        error = self._over.pop(config)
        if error is not None:
            raise error
        return True

    def wait(self, config: PodConfig) -> None:
        """Until nothing is left to compile; raises as `is_built`."""
        while not self.is_built(config):
            for thread in list(self._running.values())[:1]:
                thread.join()

    def _run(self, config: PodConfig) -> None:
        error: BaseException | None = None
        began = time.monotonic()
        try:
            _give_way()
            self._build(config)
        except BaseException as raised:
            error = raised
        self._over[config] = error
        if time.monotonic() - began >= _FIND_SECONDS:
            self._wake()


def _give_way() -> None:
    """This thread, and what it starts, at nice 10 or above: nobody may rise from more."""
    thread = threading.get_native_id()
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    if nice < _NICE:
        os.setpriority(os.PRIO_PROCESS, thread, _NICE)
