"""Graphs that were captured with a kernel that gave wrong answers: replayed no more than once."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support import emulated
from support.emulated import CONFIG, emulated_gpu
from support.graphs import FILL, forward_batch, slots_table
from support.tables import make_evidence

from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.graph_guard import WRONG_GRAPHS, GraphGuard
from pod_integrate.engines.sglang.graphs import DecodeGraphs
from pod_integrate.engines.sglang.step import StepMetadata
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, TableEntry

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)
OTHER_TILES = with_tiles(CONFIG, Variant.parse("bf16-d64-p64x32s1w4-d16x32s1w1-c2-v2"))
TUNED = dataclasses.replace(OTHER_TILES, decode_split_tokens=128)
OWN_SPLIT = dataclasses.replace(CONFIG, decode_split_tokens=128)
KEYS = [350, 330, 390, 340]


@pytest.fixture(autouse=True)
def gpu() -> Iterator[EmulatedDevice]:
    device = emulated_gpu()
    with standing_in(device):
        yield device


class Server:
    """A group whose table has one config for steps of four decodes, captured at 2 and 4."""

    def __init__(self, gpu: EmulatedDevice, config: PodConfig, **arguments: int) -> None:
        self.group = LayerGroup(GEOMETRY, ActiveTable(GEOMETRY, gpu.key, "b"), None, gpu)
        self.group.layers = [0, 1]
        here = Bucket.of([1] * 4, KEYS)
        entries = {here: TableEntry(config, make_evidence("b"))}
        active = self.group.active
        active.offer(ConfigTable(1, GEOMETRY, active.device, "b", "now", entries).to_json())
        self.graphs = DecodeGraphs(slots_table(), 4, num_sms=16)
        self.capture()
        self.events: Counter[str] = Counter()
        self.graph_runner = SimpleNamespace(can_run_graph=lambda batch: batch.batch_size <= 4)
        self.runner = SimpleNamespace(
            server_args=SimpleNamespace(**arguments), decode_cuda_graph_runner=self.graph_runner
        )
        self.guard = GraphGuard(self.runner, self.graphs, self.count)

    def count(self, event: str, count: int) -> None:
        self.events[event] += count

    def capture(self) -> None:
        self.graphs.renew(4)
        for size in (4, 2):
            self.graphs.capture(forward_batch([FILL] * size, [0] * size), [self.group])

    def tiles(self, size: int) -> PodConfig:
        batch = forward_batch(KEYS[:size], [3, 1, 7, 2][:size])
        return self.graphs.update(batch, live=False).layers[self.group].plan.config

    def asks(self, size: int) -> Any:
        return self.graph_runner.can_run_graph(SimpleNamespace(batch_size=size))


def test_config_that_is_refused_during_its_capture_fails_no_layer_of_it(
    kit: SimpleNamespace, gpu: EmulatedDevice
) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    server = Server(gpu, TUNED)
    step = server.graphs.update(forward_batch(KEYS, [3, 1, 7, 2]), live=False)
    # By the thread that verifies, while SGLang has this thread capture.
    server.group.readiness.refuse(OTHER_TILES, "answers differ", wrong=True)
    metadata = StepMetadata(step.batch, live=False, layers=step.layers)
    backend: Any = SimpleNamespace(forward_metadata=metadata)
    plan = PodAttnBackend._plan(backend, server.group)
    assert plan.config == OTHER_TILES == step.layers[server.group].plan.config
    # Then it is as any graph whose tiles are found wrong later.
    server.guard.replayed(4)
    assert server.asks(4) is False


def test_batches_of_a_wrong_graph_are_attended_eagerly_and_others_as_before(
    gpu: EmulatedDevice,
) -> None:
    server = Server(gpu, TUNED)
    assert (server.tiles(4), server.tiles(2)) == (OTHER_TILES, CONFIG)
    server.guard.replayed(4)
    assert server.asks(4) and not server.events
    server.group.readiness.refuse(TUNED, "differs", wrong=True)
    server.guard.replayed(2)
    assert server.asks(4) and not server.events
    server.guard.replayed(4)
    # SGLang pads 3 to 4.
    assert [server.asks(n) for n in (1, 2, 3, 4, 5)] == [True, True, False, False, False]
    assert server.events == {WRONG_GRAPHS: 1}


def test_the_next_capture_has_the_defaults_tiles_and_its_graphs_are_replayed(
    gpu: EmulatedDevice,
) -> None:
    server = Server(gpu, TUNED)
    server.group.readiness.refuse(TUNED, "differs", wrong=True)
    server.guard.replayed(4)
    server.capture()
    assert server.tiles(4) == CONFIG and server.asks(4)


def test_a_config_that_was_refused_for_no_answer_chooses_no_tiles_and_stops_no_graph(
    gpu: EmulatedDevice,
) -> None:
    server = Server(gpu, TUNED)
    server.group.readiness.refuse(TUNED, "does not fit")
    server.guard.replayed(4)
    assert server.asks(4) and not server.events
    server.capture()
    assert server.tiles(4) == CONFIG


def test_wrong_answers_with_the_defaults_tiles_stop_no_graph(gpu: EmulatedDevice) -> None:
    server = Server(gpu, OWN_SPLIT)
    server.group.readiness.refuse(OWN_SPLIT, "differs", wrong=True)
    server.guard.replayed(4)
    assert server.asks(4) and not server.events


@pytest.mark.parametrize("size", ["tp_size", "pp_size", "dp_size"])
def test_ranks_that_must_agree_go_on_and_say_so(
    gpu: EmulatedDevice, size: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(gpu, TUNED, **{size: 2})
    server.group.readiness.refuse(TUNED, "differs", wrong=True)
    for _ in range(3):
        server.guard.replayed(4)
    assert server.asks(4) and server.events == {WRONG_GRAPHS: 3}
    said = [r.getMessage() for r in caplog.records if "decode graph of 4" in r.getMessage()]
    assert len(said) == 1 and "recapture_cuda_graph" in said[0]


def test_an_sglang_whose_graphs_cannot_be_kept_off_goes_on_and_says_so(
    gpu: EmulatedDevice, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(gpu, TUNED)
    del server.runner.decode_cuda_graph_runner
    server.group.readiness.refuse(TUNED, "differs", wrong=True)
    server.guard.replayed(4)
    assert "recapture_cuda_graph" in caplog.text and server.events == {WRONG_GRAPHS: 1}


def test_the_installed_sglang_asks_the_instance_that_is_guarded(kit: SimpleNamespace) -> None:
    from sglang.srt.model_executor.model_runner import ModelRunner

    assert kit is not None
    source = inspect.getsource(ModelRunner._forward_raw)
    assert "self.decode_cuda_graph_runner.can_run_graph(forward_batch)" in source
