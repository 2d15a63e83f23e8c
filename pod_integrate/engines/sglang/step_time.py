"""Wall time of forward steps, from an AROUND hook on the scheduler's run_batch.

On a CPU run_batch ends when the step has: launch, forward and sampling happen in it, with the
overlap schedule too. On a device it ends with the launch, so its time would mean nothing there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TARGET = "sglang.srt.managers.scheduler.Scheduler.run_batch"

# SGLang's hooks are functions of the process, so this is the one place that listens to them.
_listeners: list[Callable[[float], None]] = []


def listen(on_step: Callable[[float], None]) -> None:
    """Call `on_step(seconds)` after each run_batch of this process from now on.

    Called while the scheduler builds its model, not when plug-ins load: the hook would import
    the scheduler into every process of the server.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if not _listeners:
        HookRegistry.register(TARGET, _around, HookType.AROUND)
        HookRegistry.apply_hooks()
    _listeners.append(on_step)


def _around(run_batch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    start = time.perf_counter()
    result = run_batch(*args, **kwargs)
    seconds = time.perf_counter() - start
    for on_step in _listeners:
        on_step(seconds)
    return result
