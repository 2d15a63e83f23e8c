"""Signals end the tuner cleanly, a closed terminal among them."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tuner.host.signals import ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_each_signal_ends_it_and_the_old_handler_is_back(number: signal.Signals) -> None:
    # A test run under nohup has SIGHUP ignored.
    ended, before, theirs = threading.Event(), signal.default_int_handler, signal.getsignal(number)
    signal.signal(number, before)
    try:
        with ended_by_signals(ended):
            assert signal.getsignal(number) is not before
            os.kill(os.getpid(), number)
            assert ended.wait(60)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, theirs)


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    ended, before = threading.Event(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals(ended):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not ended.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
