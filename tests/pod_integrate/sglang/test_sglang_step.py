"""Steps on fakes: lengths, table rows read in place, what is told around a forward."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import torch
from support.step import MAX_CONTEXT, forward_batch

from pod_integrate.engines.sglang import step_time
from pod_integrate.engines.sglang.step import hybrid_batch, step_lengths
from pod_integrate.errors import UnsupportedFeatureError


def test_mixed_batch_is_read_as_an_extend() -> None:
    assert step_lengths(forward_batch([20, 9, 5], [12, 1, 1])) == ([12, 1, 1], [20, 9, 5])


def test_decode_batch_has_one_token_per_request() -> None:
    assert step_lengths(forward_batch([20, 9], "decode")) == ([1, 1], [20, 9])


def test_idle_rank_of_data_parallelism_has_an_empty_batch() -> None:
    table = torch.zeros((4, MAX_CONTEXT), dtype=torch.int32)
    assert hybrid_batch(forward_batch([], "idle"), table).num_tokens == 0


def test_lengths_may_be_tensors_and_padded_rows_have_none() -> None:
    padded = forward_batch([20, 9, 1], [torch.tensor(12), torch.tensor(1)])
    assert step_lengths(padded) == ([12, 1, 0], [20, 9, 1])


def test_lengths_on_the_device_only_are_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="lengths on the host"):
        step_lengths(forward_batch([3], None))


def test_slot_table_is_read_in_place() -> None:
    table = torch.arange(5 * MAX_CONTEXT, dtype=torch.int32).view(5, MAX_CONTEXT)
    batch = hybrid_batch(forward_batch([6, 4], [2, 1], rows=[3, 1]), table)
    assert batch.page_indices.data_ptr() == table.data_ptr()
    assert batch.page_starts.tolist() == [3 * MAX_CONTEXT, MAX_CONTEXT]
    assert batch.page_size == 1


def test_listeners_are_told_before_and_after_a_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def start() -> int:
        told.append("start")
        return len(told)

    def forward(batch: int) -> int:
        told.append("forward")
        return batch + 1

    listener = step_time.Listener(start, told.append)
    monkeypatch.setattr(step_time, "_listeners", [listener, listener])
    assert step_time._around(forward, 4) == 5
    assert told == ["start", "start", "forward", 1, 2]


def test_the_forward_that_is_hooked_exists() -> None:
    module, _, name = step_time.TARGET.rpartition(".ModelRunner.")
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    body = ast.parse(Path(spec.origin).read_text()).body
    (runner,) = (n for n in body if isinstance(n, ast.ClassDef) and n.name == "ModelRunner")
    assert name in {getattr(member, "name", "") for member in runner.body}
