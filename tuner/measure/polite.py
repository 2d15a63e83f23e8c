"""Measuring goes last: niceness that also holds where Linux shares the CPU by session."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_AUTOGROUP = Path("/proc/self/autogroup")


def be_polite(nice: int) -> None:
    """Add `nice` to this process's niceness, in a session of its own where that can be had.

    With autogroup scheduling niceness counts inside of a session only and every session gets an
    equal share, so a measuring process would take half a machine from a server in another one. A
    process group's leader (as under Ray) cannot leave its session: there, start tuner and server
    from one session, or weigh them by cgroup.
    """
    total = os.nice(nice)
    try:
        os.setsid()
    except PermissionError:
        logger.debug("measuring stays in session %d: this process leads a group", os.getsid(0))
        return
    if _AUTOGROUP.exists():
        _AUTOGROUP.write_text(str(total))
