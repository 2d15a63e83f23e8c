"""Steps of continuous batching: what is read in place, how often, what is traced and looked up."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tables import make_table

from benchmarks.engines import hf_models
from benchmarks.engines.sink import TraceSink
from pod_integrate import hf, op
from pod_integrate.devices.call import Attention
from pod_integrate.devices.registry import device_of
from pod_integrate.engines.transformers import layouts
from pod_integrate.engines.transformers.ring import RingGather
from pod_integrate.live.registry import save_file
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

TOKENS = 6
LENGTHS = (5, 37, 90, 33)


@dataclasses.dataclass
class Seen:
    """Calls of the op, in order: its batch, the storage that it read and the config it ran."""

    batches: list[HybridBatch]
    storages: list[int]
    configs: list[Any]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    calls = Seen([], [], [])
    attend = op.attend

    def counted(attention: Attention, *args: Any, **kwargs: Any) -> Any:
        _, k, _, batch, _ = args
        calls.batches.append(batch)
        calls.storages.append(k.untyped_storage().data_ptr())
        calls.configs.append(attention.config)
        return attend(attention, *args, **kwargs)

    monkeypatch.setattr(op, "attend", counted)
    return calls


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    layout_of = layouts.CacheLayout.__init__

    def noted(self: Any, cache: Any) -> None:
        made.append(cache)
        layout_of(self, cache)

    monkeypatch.setattr(layouts.CacheLayout, "__init__", noted)
    return made


def run(name: str = "llama", chunk: int = 48) -> Any:
    model = hf_models.build(name, "pod")
    prompts = hf_models.random_prompts(LENGTHS)
    return hf_models.batched(model, prompts, TOKENS, max_batch_tokens=chunk)


def cache_storages(cache: Any) -> set[int]:
    tensors = getattr(cache, "key_cache", None) or [cache.cache_tensor]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_cache_is_read_in_place_by_one_call_per_layer_and_one_batch_per_step(
    seen: Seen, caches: list[Any]
) -> None:
    run()
    assert set(seen.storages) <= cache_storages(caches[0])
    layers = hf_models.MODELS["llama"]().num_hidden_layers
    steps = [seen.batches[i : i + layers] for i in range(0, len(seen.batches), layers)]
    assert all(batch is step[0] for step in steps for batch in step)
    assert len({id(step[0]) for step in steps}) == len(steps) > TOKENS


def test_hybrid_steps_reach_the_op_whole(seen: Seen) -> None:
    run()
    buckets = [batch.bucket for batch in seen.batches]
    assert any(bucket.is_hybrid for bucket in buckets)
    assert any(bucket.decodes and not bucket.prefill_tokens for bucket in buckets)
    tokens = sum(batch.num_tokens for batch in seen.batches) // 2
    assert tokens == sum(LENGTHS) + len(LENGTHS) * (TOKENS - 1)


def test_upstream_never_gathers_nor_lists_what_it_would_gather(
    monkeypatch: pytest.MonkeyPatch, caches: list[Any]
) -> None:
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    def gathered(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("upstream gathered the cache")

    monkeypatch.setattr(PagedAttentionCache, "update", gathered)
    prompts = hf_models.random_prompts(LENGTHS)
    want = [hf_models.greedy(hf_models.build("llama", "sdpa"), [p], TOKENS)[0] for p in prompts]
    read: list[Any] = []
    extend = PagedAttentionCache.extend_read_and_write_indices

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        read.append([*args, *kwargs.values()][3])
        return extend(self, *args, **kwargs)

    monkeypatch.setattr(PagedAttentionCache, "extend_read_and_write_indices", noted)
    assert run() == want
    assert read and set(read) == {None}


def test_rings_are_read_in_place_but_for_chunks_that_wrap(
    seen: Seen, caches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    join = RingGather.join

    def noted(self: Any, *args: Any) -> Any:
        joined.append(self.batch.num_tokens)
        return join(self, *args)

    monkeypatch.setattr(RingGather, "join", noted)
    run("mistral")
    in_place = [s in cache_storages(caches[0]) for s in seen.storages]
    for batch, inside in zip(seen.batches, in_place, strict=True):
        decode_only = set(batch.lengths[0]) == {1}
        assert inside or not decode_only, batch.lengths
    assert joined and sum(in_place) > len(in_place) / 3
    window = hf_models.WINDOW
    for batch, inside in zip(seen.batches, in_place, strict=True):
        for q_len, kv_len in zip(*batch.lengths, strict=True):
            assert kv_len <= (window if inside else window - 1 + q_len)


def test_steps_are_traced_with_lengths_and_times_and_one_record_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hf.disable()
    with TraceSink() as sink:
        monkeypatch.setenv("POD_ATTN_TUNER_URL", sink.url)
        monkeypatch.setenv("POD_ATTN_TRACE_SAMPLE", "1")
        monkeypatch.setenv("POD_ATTN_POLL_SECONDS", "0.2")
        hf.enable()
        # The first steps warm up and are not traced.
        run()
        warm = time.time()
        run()
        hf.disable()
        records = [record for record in sink.records() if record.time >= warm]
    hf.enable()
    assert sum(sum(r.q_lens) for r in records) == sum(LENGTHS) + len(LENGTHS) * (TOKENS - 1)
    assert {r.layers for r in records} == {2}
    assert all(0 < r.attention_us < r.step_us for r in records)


def test_saved_table_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    device = torch.device("cpu")
    config = hf_models.MODELS["llama"]()
    geometry = Geometry.uniform(
        (config.num_attention_heads, config.num_key_value_heads, 32),
        "fp32",
        page_size=hf_models.PAGE,
    )
    run()
    bucket = seen.batches[0].bucket
    default = device_of(device).default_config(geometry)
    other = dataclasses.replace(default, prefill_ctas=1, decode_ctas=1)
    assert other != default
    build = device_of(device).kernel_build
    table = make_table(
        other, [bucket], geometry=geometry, device=device_of(device).key, build=build
    )
    file = tmp_path / "table.json"
    save_file(file, table.to_json())
    monkeypatch.setenv("POD_ATTN_TABLE", str(file))
    monkeypatch.setenv("POD_ATTN_POLL_SECONDS", "0.1")
    hf.disable()
    hf.enable()
    seen.configs.clear()
    # The first steps ask for it; it is prepared beside them.
    for _ in range(100):
        run()
        if other in seen.configs:
            break
    hf.disable()
    hf.enable()
    assert seen.configs[0] == default and other in seen.configs
