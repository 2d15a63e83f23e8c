"""SGLang's attention kit, imported once, when a test first asks for it."""

from __future__ import annotations

import unittest
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch


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
    # Of the kit before 0.5.17; real runners have one.
    if not hasattr(dense_attention.MockModelRunner, "model"):
        dense_attention.MockModelRunner.model = torch.nn.Module()
    return SimpleNamespace(dense=dense_attention, split=split_op_runner, mode=ForwardMode)


@pytest.fixture
def small(kit: SimpleNamespace) -> Any:
    """SGLang's runner of its kit with a small pool, our backend on it, and a batch of one chunk."""
    case = kit.dense.DenseAttentionCase(
        name="small",
        backend="pod",
        forward_mode=kit.mode.EXTEND,
        num_heads=4,
        num_kv_heads=2,
        page_size=16,
        prefix_lens=(9,),
        extend_lens=(20,),
    )
    with torch.no_grad():
        return kit.dense.build_dense_attention_fixture(
            unittest.TestCase(), case, head_dim=32, device="cpu", dtype=torch.float32
        )
