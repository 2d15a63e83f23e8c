"""Recorder: what it keeps, what it drops, and that what it drains fits one message."""

from __future__ import annotations

import threading

import pytest
import torch
from support.clock import HandClock, Stream

from pod_integrate.devices.clock import WallClock
from pod_integrate.live.open_step import OpenStep
from pod_integrate.live.recorder import Recorder
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.trace import (
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    MAX_ROWS,
    WIRE_VERSION,
    TraceMessage,
    decode,
    encode,
)
from pod_integrate.terms.wire import MAX_LAYERS, MAX_LENGTH

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
    clock = HandClock()
    recorder = Recorder(clock, sample=1.0)
    step = recorder.begin(make_batch([5, 1], [9, 7]), CONFIG, "exact")
    assert step is not None
    for seconds in (0.25e-3, 0.5e-3):
        mark = step.start_attention()
        clock.now += seconds
        step.stop_attention(mark)
    step.ended(2e-3)
    recorder.end(step)
    (record,) = decode(encode(message_of(recorder))).records
    assert (record.q_lens, record.kv_lens) == ([5, 1], [9, 7])
    assert record.attention_us == pytest.approx(750) and record.step_us == pytest.approx(2000)
    assert (record.layers, record.config, record.source) == (2, CONFIG.short(), "exact")


def test_sampling_keeps_its_share_and_counts_every_step() -> None:
    recorder, batch = Recorder(WallClock(), sample=0.25, seed=1), make_batch([1], [3])
    opened = [recorder.begin(batch, CONFIG, "default") for _ in range(2000)]
    assert 400 < sum(step is not None for step in opened) < 600
    assert recorder.drain().seen == 2000


def test_full_buffer_drops_and_counts_and_never_grows() -> None:
    recorder, batch = Recorder(WallClock(), sample=1.0, capacity=3), make_batch([1], [3])
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
    recorder = Recorder(WallClock(), sample=1.0)
    rows = MAX_ROWS + 1
    assert recorder.begin(make_batch([1] * rows, [1] * rows), CONFIG, "default") is None
    assert recorder.drain().dropped == 1


def test_drained_records_always_fit_one_message() -> None:
    recorder = Recorder(WallClock(), sample=1.0)
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


@pytest.mark.parametrize(
    ("kv_len", "layers", "seconds"),
    [
        (MAX_LENGTH + 1, 1, 0.0),
        (9, MAX_LAYERS + 1, 0.0),
        (9, 1, -1.0),
        (9, 1, 1e9),
        (9, 1, float("nan")),
        (9, 1, float("inf")),
    ],
)
def test_a_step_beyond_the_wires_bounds_is_dropped_and_its_neighbours_arrive(
    kv_len: int, layers: int, seconds: float
) -> None:
    recorder = Recorder(WallClock(), sample=1.0)
    for batch, count, took in (
        (make_batch([1], [3]), 1, 0.0),
        (make_batch([1], [kv_len]), layers, seconds),
        (make_batch([1], [5]), 1, 0.0),
    ):
        step = recorder.begin(batch, CONFIG, "default")
        assert step is not None
        step.layers = count
        step.ended(took)
        recorder.end(step)
    message = decode(encode(message_of(recorder)))
    assert [r.kv_lens for r in message.records] == [[3], [5]]
    assert (message.seen, message.dropped) == (3, 1)
    assert recorder.drain().dropped == 0


def test_many_small_records_leave_in_several_messages() -> None:
    recorder, batch = Recorder(WallClock(), sample=1.0), make_batch([1], [3])
    for _ in range(MAX_RECORDS + 5):
        step = recorder.begin(batch, CONFIG, "default")
        assert step is not None
        recorder.end(step)
    assert len(recorder.drain().records) == MAX_RECORDS
    assert len(recorder.drain().records) == 5


def test_draining_beside_a_recording_thread_loses_nothing() -> None:
    recorder, batch = Recorder(WallClock(), sample=1.0, capacity=10**6), make_batch([1], [3])

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


def run_on(stream: Stream, recorder: Recorder, layers: int, seconds: float) -> OpenStep:
    """Queues a step of `layers` attention calls, and files it as its launch ends."""
    step = recorder.begin(make_batch([5, 1], [9, 7]), CONFIG, "default")
    assert step is not None
    for _ in range(layers):
        mark = step.start_attention()
        stream.work(seconds)
        if mark is not None:
            step.stop_attention(mark)
    recorder.end(step)
    return step


def test_a_gpus_step_is_filed_once_its_times_are_known() -> None:
    stream = Stream()
    recorder = Recorder(stream.clock(), sample=1.0)
    run_on(stream, recorder, layers=2, seconds=1e-3)
    recorder.clock.harvest()
    recorder.settle()
    assert not recorder.drain().records
    stream.catch_up()
    recorder.clock.harvest()
    recorder.settle()
    (record,) = recorder.drain().records
    assert record.attention_us == pytest.approx(2000) and record.layers == 2


def test_on_a_gpu_some_layers_stand_for_all_and_each_takes_its_turn() -> None:
    stream = Stream()
    recorder = Recorder(stream.clock(), sample=1.0)
    for _ in range(40):
        run_on(stream, recorder, layers=32, seconds=1e-3)
        stream.catch_up()
        recorder.clock.harvest()
        recorder.settle()
    records = recorder.drain().records
    assert [r.attention_us for r in records] == [pytest.approx(32000)] * 40
    assert {r.layers for r in records} == {32}
    # All layers of the first step, whose number nobody knew, and then four of every step.
    assert len(stream.events) == 2 * 32


def test_steps_whose_times_never_come_are_filed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pod_integrate.live.recorder._MOST_WAITING", 2)
    stream = Stream()
    stream.work(1.0)
    recorder = Recorder(stream.clock(), sample=1.0)
    for _ in range(5):
        run_on(stream, recorder, layers=1, seconds=1e-3)
    assert [r.attention_us for r in recorder.drain().records] == [0.0] * 3


def test_a_replayed_graph_is_traced_with_the_time_that_its_stamps_tell() -> None:
    told: list[float | None] = [None, 2e-3]
    recorder = Recorder(HandClock(), sample=1.0)
    for _ in range(2):
        step = recorder.begin_replay(([1, 1], [9, 7]), CONFIG, "exact", layers=8)
        assert step is not None
        step.read_graph = lambda: told[0]
        step.ended(20e-3)
        recorder.end(step)
        told.reverse()
    unread, record = recorder.drain().records
    assert unread.attention_us == 0 and unread.step_us == pytest.approx(20000)
    assert record.attention_us == pytest.approx(16000) and record.step_us == pytest.approx(20000)
    assert (record.q_lens, record.kv_lens, record.layers) == ([1, 1], [9, 7], 8)
    assert record.source == "exact"
