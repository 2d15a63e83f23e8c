"""From a GPU server's steps to a task: nothing on the way may need a time that a GPU has not."""

from __future__ import annotations

from typing import NoReturn, cast

import msgspec
import pytest
import torch
from support.clock import Stream, StreamTimer
from tuner_support import BUILD, message, overview

from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.live.captured import Captured, ReplayStep
from pod_integrate.live.groups import end_step
from pod_integrate.live.layer_group import LayerGroup, StepPlan
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.live.replays import replay
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.trace import TraceMessage, decode, encode
from tuner.core import Tuner
from tuner.messages import WorkerInfo

H100 = DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132)
GEOMETRY = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
LAYERS = 32
EAGER = [512] + [1] * 16, [4096] * 17
REPLAYED = [1] * 16, [4096] * 16
# Of one layer, by rows.
MICROSECONDS = {17: 200, 16: 50}
WORKER = WorkerInfo(id="w0", device=str(H100), build=BUILD)


class Uncalled(Attention):
    """Nothing attends in these tests."""

    def __call__(self, call: Call) -> NoReturn:
        raise AssertionError(call)


class Elsewhere(EmulatedDevice):
    """An H100 of another machine: its configs are chosen and traced here, and never called."""

    target = CudaTarget(H100)

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Uncalled:
        return Uncalled(geometry, config or self.default_config(geometry))


def batch_of(lengths: tuple[list[int], list[int]]) -> HybridBatch:
    starts = [row * 4096 for row in range(len(lengths[0]))]
    pages = torch.zeros(4096 * len(starts), dtype=torch.int32)
    return HybridBatch.build(*lengths, page_indices=pages, page_starts=starts, page_size=1)


def attend(
    stream: Stream,
    group: LayerGroup,
    timer: StreamTimer,
    captured: Captured,
    lengths: tuple[list[int], list[int]],
) -> None:
    """One forward: eager where it is hybrid, else a replay of the captured decode graph."""
    assert group.recorder is not None
    clock = group.recorder.clock
    mark = clock.start()
    if lengths[0] == EAGER[0]:
        watch: StepPlan | StreamTimer = group.plan(batch_of(lengths), live=True)
    else:
        watch = timer
        replay(group, ReplayStep(lengths, Bucket.of(*lengths)), captured, lambda split: True)
    for layer in group.layers:
        # In a replay it is the graph's stamps that do this.
        begun = watch.start(layer)
        stream.work(MICROSECONDS[len(lengths[0])] * 1e-6)
        if begun is not None:
            watch.stop(begun)
    end_step(clock, [group], mark)
    stream.catch_up()


def serve(stream: Stream, steps: int) -> TraceMessage:
    """What a server tells after `steps` steps, half of them hybrid."""
    recorder = Recorder(stream.clock(), sample=1.0)
    group = LayerGroup(GEOMETRY, ActiveTable(GEOMETRY, H100, BUILD), recorder, Elsewhere())
    group.layers = list(range(LAYERS))
    timer = StreamTimer(stream, group.layers)
    captured = Captured(group.readiness.default, cast(GraphTimer, timer))
    # The first eager step and the first replay warm up and are not traced.
    for number in range(2 + steps + 1):
        q_lens, kv_lens = (EAGER, REPLAYED)[number % 2]
        # No step is like the one before it.
        attend(stream, group, timer, captured, (q_lens, [kv_len - number for kv_len in kv_lens]))
    drained = recorder.drain()
    assert len(drained.records) == steps
    return message(
        records=drained.records,
        configs={key: config.to_dict() for key, config in drained.configs.items()},
        geometry=str(GEOMETRY),
        device=str(H100),
    )


def test_records_of_a_gpu_carry_its_own_times() -> None:
    sent = decode(encode(serve(Stream(), 24)))
    for lengths in (EAGER, REPLAYED):
        records = [r for r in sent.records if r.q_lens == lengths[0]]
        wanted = LAYERS * MICROSECONDS[len(lengths[0])]
        assert [r.attention_us for r in records] == [pytest.approx(wanted)] * 12
        assert [r.step_us for r in records] == [pytest.approx(wanted)] * 12
        assert {r.layers for r in records} == {LAYERS}


def test_a_gpu_server_gets_a_task_for_where_its_time_goes(tuner: Tuner) -> None:
    tuner.ingest(serve(Stream(), 24))
    task = tuner.next_task(WORKER)
    assert task is not None and task.bucket == str(Bucket.of(*EAGER))


def test_a_step_that_nobody_could_time_weighs_what_its_work_would_take(tuner: Tuner) -> None:
    sent = serve(Stream(), 24)
    timeless = [msgspec.structs.replace(r, attention_us=0.0, step_us=0.0) for r in sent.records]
    tuner.ingest(msgspec.structs.replace(sent, records=timeless))
    shares = {row["bucket"]: row["time_share"] for row in overview(tuner)["buckets"]}
    assert set(shares) == {str(Bucket.of(*EAGER)), str(Bucket.of(*REPLAYED))}
    assert min(shares.values()) > 0.05
    assert tuner.next_task(WORKER) is not None
