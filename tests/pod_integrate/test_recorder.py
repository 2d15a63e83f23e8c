"""Recorder: what it keeps, what it drops, and that what it drains fits one message."""

from __future__ import annotations

import threading

import pytest
import torch

from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig, TileConfig
from pod_integrate.recorder import Recorder
from pod_integrate.trace import (
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    MAX_ROWS,
    WIRE_VERSION,
    TraceMessage,
    decode,
    encode,
)

TILE = TileConfig(q_rows=16, kv_rows=32)
CONFIG = PodConfig(prefill=TILE, decode=TILE)


def make_batch(q_lens: list[int], kv_lens: list[int]) -> HybridBatch:
    width = max(kv_lens)
    return HybridBatch.build(
        q_lens,
        kv_lens,
        page_indices=torch.zeros((len(q_lens), width), dtype=torch.int32),
        page_starts=[row * width for row in range(len(q_lens))],
        page_size=1,
    )


def message_of(recorder: Recorder) -> TraceMessage:
    drained = recorder.drain()
    return TraceMessage(
        version=WIRE_VERSION,
        server="s",
        sequence=0,
        geometry="q8kv4d64-fp32-kvfp32-s1-w-1-c0",
        device="cpu:avx2:2",
        build="cpu-0",
        seen=drained.seen,
        dropped=drained.dropped,
        table_version=0,
        configs={key: config.to_dict() for key, config in drained.configs.items()},
        records=drained.records,
    )


def test_record_holds_lengths_times_and_config() -> None:
    recorder = Recorder(sample=1.0)
    step = recorder.begin(make_batch([5, 1], [9, 7]), CONFIG, "exact")
    assert step is not None
    step.add_attention(0.25e-3)
    step.add_attention(0.5e-3)
    recorder.end(step, step_seconds=2e-3)
    (record,) = decode(encode(message_of(recorder))).records
    assert (record.q_lens, record.kv_lens) == ([5, 1], [9, 7])
    assert (record.attention_us, record.step_us) == (pytest.approx(750), pytest.approx(2000))
    assert (record.layers, record.config, record.source) == (2, CONFIG.short(), "exact")


def test_sampling_keeps_its_share_and_counts_every_step() -> None:
    recorder, batch = Recorder(sample=0.25, seed=1), make_batch([1], [3])
    opened = [recorder.begin(batch, CONFIG, "default") for _ in range(2000)]
    assert 400 < sum(step is not None for step in opened) < 600
    assert recorder.drain().seen == 2000


def test_full_buffer_drops_and_counts_and_never_grows() -> None:
    recorder, batch = Recorder(sample=1.0, capacity=3), make_batch([1], [3])
    for _ in range(10):
        step = recorder.begin(batch, CONFIG, "default")
        if step is not None:
            recorder.end(step)
    assert len(recorder) == 3
    drained = recorder.drain()
    assert (len(drained.records), drained.seen, drained.dropped) == (3, 10, 7)
    again = recorder.drain()
    assert (again.records, again.seen, again.dropped) == ([], 0, 0)


def test_step_with_more_rows_than_the_schema_takes_is_dropped() -> None:
    recorder = Recorder(sample=1.0)
    rows = MAX_ROWS + 1
    assert recorder.begin(make_batch([1] * rows, [1] * rows), CONFIG, "default") is None
    assert recorder.drain().dropped == 1


def test_drained_records_always_fit_one_message() -> None:
    recorder = Recorder(sample=1.0)
    wide = make_batch([1] * 4000, [9] * 4000)
    for _ in range(40):
        step = recorder.begin(wide, CONFIG, "default")
        assert step is not None
        recorder.end(step)
    sizes = []
    while len(recorder):
        body = encode(message_of(recorder))
        sizes.append(len(decode(body).records))
        assert len(body) <= MAX_MESSAGE_BYTES
    assert sum(sizes) == 40
    assert len(sizes) > 1


def test_many_small_records_leave_in_several_messages() -> None:
    recorder, batch = Recorder(sample=1.0), make_batch([1], [3])
    for _ in range(MAX_RECORDS + 5):
        step = recorder.begin(batch, CONFIG, "default")
        assert step is not None
        recorder.end(step)
    assert len(recorder.drain().records) == MAX_RECORDS
    assert len(recorder.drain().records) == 5


def test_draining_beside_a_recording_thread_loses_nothing() -> None:
    recorder, batch = Recorder(sample=1.0, capacity=10**6), make_batch([1], [3])

    def record() -> None:
        for _ in range(5000):
            step = recorder.begin(batch, CONFIG, "default")
            assert step is not None
            recorder.end(step)

    thread = threading.Thread(target=record)
    thread.start()
    records = seen = 0
    while thread.is_alive() or len(recorder):
        drained = recorder.drain()
        records, seen = records + len(drained.records), seen + drained.seen
    thread.join()
    seen += recorder.drain().seen
    assert (records, seen) == (5000, 5000)
