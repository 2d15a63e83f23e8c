"""Beginning and end of forward steps, from an AROUND hook on the model runner's forward.

It runs on the stream of the forward, so that what the device does in between can be timed. On a CPU
the forward has ended when it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pod_integrate.devices.clock import Mark

TARGET = "sglang.srt.model_executor.model_runner.ModelRunner.forward"


class Listener(NamedTuple):
    """Called around each forward: `end` gets what `start` returned."""

    start: Callable[[], Mark]
    end: Callable[[Mark], None]


# SGLang's hooks are functions of the process, so this is the one place that listens to them.
_listeners: list[Listener] = []


def listen(start: Callable[[], Mark], end: Callable[[Mark], None]) -> None:
    """Call `end(start())` around each forward of this process from now on.

    Called while the scheduler builds its model, not when plug-ins load: the hook would import
    the model runner into every process of the server.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if not _listeners:
        HookRegistry.register(TARGET, _around, HookType.AROUND)
        HookRegistry.apply_hooks()
    _listeners.append(Listener(start, end))


def _around(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    marks = [listener.start() for listener in _listeners]
    result = forward(*args, **kwargs)
    for listener, mark in zip(_listeners, marks, strict=True):
        listener.end(mark)
    return result
