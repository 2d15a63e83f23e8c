"""SGLang's attention kit, imported once, when a test first asks for it."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Modules of SGLang's own backend tests, with our plug-in loaded."""
    with warnings.catch_warnings():
        # SGLang warns about kernels that it misses on a CPU while it is imported.
        warnings.simplefilter("ignore")
        from sglang.srt.model_executor.forward_batch_info import ForwardMode
        from sglang.srt.plugins import load_plugins
        from sglang.test.kits.attention_unittest.attention_methods import dense_attention
        from sglang.test.kits.attention_unittest.runner_modes import split_op_runner
    load_plugins()
    return SimpleNamespace(dense=dense_attention, split=split_op_runner, mode=ForwardMode)
