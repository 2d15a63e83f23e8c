"""Which signals end a process, and those as an event."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def terminations() -> list[signal.Signals]:
    """What ends a process that nobody interrupts: SIGTERM, and SIGHUP of a terminal that is closed.

    Under nohup SIGHUP is ignored, and so it stays.
    """
    closed = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGHUP] if closed else [signal.SIGTERM]


@contextmanager
def ended_by_signals(ended: threading.Event) -> Iterator[None]:
    """Set `ended` on SIGINT and `terminations`; put the old handlers back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    old = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, *terminations())}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
