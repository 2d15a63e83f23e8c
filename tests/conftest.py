"""Settings that all tests share.

Property tests draw the same examples in every run, and files run in the same order, so that a red
run is the change's own fault and blocks nobody by chance. New examples and another order, the
seed of which is printed, are for whoever looks for bugs:

    make test-random      (SEED=... repeats a run)

`make test` runs files side by side (`-n auto`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import hypothesis
import psutil
import pytest
import torch
from support.order import long_first

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("random", deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile(
    "same", hypothesis.settings.get_profile("random"), derandomize=True
)
# What --hypothesis-profile names is loaded after this.
hypothesis.settings.load_profile("same")


# Idle threads of one worker's torch would spin on the cores of the other: five times as long. The
# workers and all servers have it from here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What the servers of one file take, and more workers than this wait for each other's.
_BYTES_OF_A_WORKER = 7 << 30
_MOST_WORKERS = 4


def pytest_xdist_auto_num_workers() -> int:
    """Files that run side by side under `-n auto`."""
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total
    # A container may have less than its machine.
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(1, min(cores, memory // _BYTES_OF_A_WORKER, _MOST_WORKERS))


# Before the plug-in that puts files in a random order, where that is asked for.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = long_first(items, lambda item: item.path)


@pytest.fixture(scope="module")
def one_thread_for_the_reference() -> Iterator[None]:
    """Threads of torch's small products wait for each other where cores are busy; ours stay two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with mock.patch.dict(os.environ, POD_ATTN_THREADS="2"):
        yield
    torch.set_num_threads(threads)
