"""Layers with a window whose keys SGLang keeps in a pool of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import emulated
from support.emulated import CONFIG, SMS, emulated_gpu
from support.graphs import FILL, SLOTS, attend, forward_batch, slots_table, tensors

from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.graphs import DecodeGraphs
from pod_integrate.engines.sglang.windows import WindowSlots, plain_pools, pool_name
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.registry import ActiveTable
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.batch import HybridBatch

WINDOW = 20
# Of request, (tokens, keys): a chunk with a prefix, a running request, a whole prompt, a short one.
REQUESTS = {1: (30, 90), 3: (1, 200), 4: (17, 17), 6: (1, 3)}


class Pool:
    """As SGLang's SWAKVPool: slots of one pool by those of the other, 0 where none is left."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.map = torch.cat(
            [torch.zeros(1, dtype=torch.int64), torch.randperm(SLOTS - 1, generator=generator) + 1]
        )
        self.layers_mapping = {0: (0, False), 1: (0, True)}

    def translate_loc_from_full_to_swa(self, slots: torch.Tensor) -> torch.Tensor:
        return self.map[slots]


def batch_of(table: torch.Tensor, requests: dict[int, tuple[int, int]]) -> HybridBatch:
    return HybridBatch.build(
        [tokens for tokens, _ in requests.values()],
        [keys for _, keys in requests.values()],
        page_indices=table,
        page_starts=[row * table.shape[1] for row in requests],
        page_size=1,
    )


def windows_of(table: torch.Tensor) -> WindowSlots:
    windows = WindowSlots(Pool(), table)
    windows.window = WINDOW
    return windows


def test_all_that_a_steps_windows_reach_is_looked_up() -> None:
    table = slots_table()
    windows, pool = windows_of(table), Pool()
    write = table[1, 60:90].long()
    step = windows.begin(
        SimpleNamespace(out_cache_loc=write), batch_of(table, REQUESTS), captured=False
    )
    found = step.batch.page_indices.view(table.shape)
    for row, (tokens, keys) in REQUESTS.items():
        first = max(0, keys - tokens - WINDOW)
        want = pool.map[table[row, first:keys].long()]
        assert torch.equal(found[row, first:keys].long(), want)
    assert step.write is not None and torch.equal(step.write, pool.map[write])
    assert step.batch.lengths == batch_of(table, REQUESTS).lengths


def test_requests_that_are_gone_leave_nothing_behind() -> None:
    table = slots_table()
    windows, pool = windows_of(table), Pool()
    none = SimpleNamespace(out_cache_loc=None)
    windows.begin(none, batch_of(table, {1: (30, 90)}), captured=False)
    # Another request in the same row, over other slots.
    table[1] = table[1].flip(0)
    step = windows.begin(none, batch_of(table, {1: (1, 80)}), captured=False)
    found = step.batch.page_indices.view(table.shape)[1, 80 - 1 - WINDOW : 80]
    assert torch.equal(found.long(), pool.map[table[1, 80 - 1 - WINDOW : 80].long()])
    assert step.write is None


def test_idle_step_looks_nothing_up() -> None:
    table = slots_table()
    step = windows_of(table).begin(
        SimpleNamespace(out_cache_loc=None), batch_of(table, {}), captured=False
    )
    assert step.batch.num_requests == 0 and step.batch.page_indices.eq(0).all()


@pytest.fixture
def gpu() -> Iterator[Any]:
    with standing_in(emulated_gpu()) as gpu:
        yield gpu


def decodes(kv_lens: list[int], rows: list[int], padding: int = 0) -> Any:
    batch = forward_batch(kv_lens, rows, padding)
    # As SGLang's view of a replay: of the rows that are no padding.
    batch.out_cache_loc = torch.arange(10, 10 + len(kv_lens))
    return batch


def test_replay_reads_and_writes_the_window_pool_where_it_was_captured(gpu: Any) -> None:
    table = slots_table()
    geometry = dataclasses.replace(emulated.GEOMETRY, page_size=1, window_left=WINDOW)
    device = EmulatedDevice(Schedule(num_sms=SMS), default=CONFIG)
    group = LayerGroup(geometry, ActiveTable(geometry, device.key, "b"), None, device)
    graphs, windows, pool = DecodeGraphs(table, 4, num_sms=SMS), windows_of(table), Pool()
    windows.reserve(4)
    first = decodes([FILL] * 4, [0] * 4)
    captured = graphs.capture(first, [group])
    fixed = windows.begin(first, captured.batch, captured=True)
    read = captured._replace(batch=fixed.batch)
    q, k_cache, v_cache = inputs = tensors(4)
    for kv_lens, rows, padding in (([350, 17, 64, 1], [3, 1, 7, 2], 0), ([5, 400], [6, 4], 2)):
        told = decodes(kv_lens, rows, padding)
        step = graphs.update(told)
        now = windows.begin(told, step.batch, captured=True)
        assert now.write is not None and fixed.write is not None
        assert now.write.data_ptr() == fixed.write.data_ptr()
        real = len(kv_lens)
        assert torch.equal(fixed.write[:real], pool.map[told.out_cache_loc])
        assert fixed.write[real:].eq(0).all(), "padding writes over an earlier step's tokens"
        assert now.batch.page_indices.data_ptr() == fixed.batch.page_indices.data_ptr()
        # Over the whole of the table as it should be, not over what was looked up.
        whole = dataclasses.replace(
            step.batch, page_indices=pool.map[table.view(-1).long()].to(torch.int32)
        )
        want = attention_reference(q, k_cache, v_cache, whole, window_left=WINDOW).out
        out = attend(read, group, inputs)
        torch.testing.assert_close(out.double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)


def test_pool_of_plain_pools_is_named_after_its_class_and_others_after_what_they_hold() -> None:
    def made(name: str, **held: Any) -> Any:
        return type(name, (), held)()

    plain, latent = made("MHATokenToKVPool"), made("MLATokenToKVPool")
    layers = {"full_layer_nums": 2, "swa_layer_nums": 2}
    both = made("SWAKVPool", full_kv_pool=plain, swa_kv_pool=plain, **layers)
    odd = made("SWAKVPool", full_kv_pool=latent, swa_kv_pool=plain, **layers)
    windows = made(
        "SWAKVPool", full_kv_pool=latent, swa_kv_pool=plain, full_layer_nums=0, swa_layer_nums=2
    )
    assert pool_name(both) == pool_name(windows) == "SWAKVPool"
    assert pool_name(odd) == "SWAKVPool of MHATokenToKVPool and MLATokenToKVPool"
    assert pool_name(plain) == "MHATokenToKVPool" and pool_name(latent) == "MLATokenToKVPool"
    assert plain_pools(windows) == [plain]


def test_sizes_and_layers_are_those_of_sglangs_own_pools(kit: SimpleNamespace) -> None:
    from sglang.srt.mem_cache.swa_memory_pool import SWAKVPool

    from pod_integrate.engines.sglang import facts

    pool = SWAKVPool(
        size=64, size_swa=96, page_size=1, dtype=torch.float32, head_num=2, head_dim=32,
        swa_attention_layer_ids=[1], full_attention_layer_ids=[0], device="cpu",
    )  # fmt: skip
    table = torch.zeros(4, 128, dtype=torch.int32)
    runner = SimpleNamespace(
        token_to_kv_pool=pool, req_to_token_pool=SimpleNamespace(req_to_token=table)
    )
    rows = pool.get_key_buffer(1).shape[0]
    assert facts._sizes(runner) == {
        "table_rows": 4, "table_columns": 128, "pool_slots": rows, "pool_bytes": rows * 2 * 32 * 4
    }  # fmt: skip
    assert rows > pool.get_key_buffer(0).shape[0]
    windows = WindowSlots.of(runner)
    assert windows is not None and windows.holds(1) and not windows.holds(0)
    runner.token_to_kv_pool = pool.full_kv_pool
    assert WindowSlots.of(runner) is None
