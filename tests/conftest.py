"""Settings that all tests share.

Property tests draw the same examples in every run, and files run in the same order, so that a red
run is the change's own fault and blocks nobody by chance. New examples and another order, the
seed of which is printed, are for whoever looks for bugs:

    make test-random      (SEED=... repeats a run)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import hypothesis
import pytest
import torch

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("random", deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile(
    "same", hypothesis.settings.get_profile("random"), derandomize=True
)
# What --hypothesis-profile names is loaded after this.
hypothesis.settings.load_profile("same")


@pytest.fixture(scope="module")
def one_thread_for_the_reference() -> Iterator[None]:
    """Threads of torch's small products wait for each other where cores are busy; ours stay two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with mock.patch.dict(os.environ, POD_ATTN_THREADS="2"):
        yield
    torch.set_num_threads(threads)
