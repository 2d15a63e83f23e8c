"""Layer groups on fakes: configs, tables, traces, warm-up."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from support.clock import HandClock, Stream, StreamTimer
from support.layers import make_usable
from support.step import GEOMETRY, MAX_CONTEXT, forward_batch
from support.tables import make_table

from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.devices.registry import device_named
from pod_integrate.engines.sglang.step import hybrid_batch
from pod_integrate.errors import SettingsError
from pod_integrate.live.captured import Captured, ReplayStep
from pod_integrate.live.groups import LayerGroups
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable, save_file
from pod_integrate.live.replays import replay
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket

CPU = device_named("cpu")


def layer_groups() -> LayerGroups:
    return LayerGroups(CPU, server="test", reports=True)


def make_group(recorder: Recorder | None = None) -> LayerGroup:
    active = ActiveTable(GEOMETRY, CPU.key_of(2), CPU.kernel_build)
    return LayerGroup(GEOMETRY, active, recorder, CPU)


def table_of(group: LayerGroup, config: PodConfig, bucket: Bucket) -> bytes:
    active = group.active
    table = make_table(
        config, [bucket], geometry=GEOMETRY, device=active.device, build=active.build
    )
    return table.to_json()


# Context and query lengths: prefill, decode, both.
KINDS = (([20], [12]), ([9], [1]), ([20, 9], [12, 1]))


def make_batch() -> Any:
    table = torch.zeros((4, MAX_CONTEXT), dtype=torch.int32)
    return hybrid_batch(forward_batch([20, 9], [12, 1]), table)


def warmed_up(group: LayerGroup, batch: Any) -> LayerGroup:
    """The group after a first step, which leaves no trace."""
    assert group.plan(batch, live=True).traced is None
    return group


def other_config(group: LayerGroup) -> PodConfig:
    return PodConfig.from_dict(group.default.to_dict() | {"ctas_per_sm": 1})


def test_step_uses_the_default_until_a_table_knows_its_bucket() -> None:
    group, batch = make_group(), make_batch()
    assert group.plan(batch, live=True).config == CPU.default_config(GEOMETRY)
    group.active.offer(table_of(group, other_config(group), batch.bucket))
    make_usable(group, batch)
    assert group.plan(batch, live=True).config == other_config(group)


def test_live_step_is_recorded_and_warm_up_is_not() -> None:
    clock = HandClock()
    recorder = Recorder(clock, sample=1.0)
    batch = make_batch()
    group = warmed_up(make_group(recorder), batch)
    assert group.plan(batch, live=False).traced is None
    plan = group.plan(batch, live=True)
    mark = plan.start(0)
    clock.now += 1e-3
    plan.stop(mark)
    assert group.close_step() is plan.traced
    assert group.close_step() is None
    (record,) = recorder.drain().records
    assert record.attention_us == pytest.approx(1000)


def test_step_that_nobody_ended_is_kept_without_wall_time() -> None:
    recorder = Recorder(HandClock(), sample=1.0)
    batch = make_batch()
    group = warmed_up(make_group(recorder), batch)
    group.plan(batch, live=True)
    group.plan(batch, live=True)
    assert [r.step_us for r in recorder.drain().records] == [0.0]


def recording_groups(monkeypatch: pytest.MonkeyPatch, clock: Any) -> LayerGroups:
    monkeypatch.setattr(CPU, "clock", lambda: clock)
    monkeypatch.setenv("POD_ATTN_TRACE_SAMPLE", "1")
    monkeypatch.setenv("POD_ATTN_TUNER_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(LayerGroups, "_start_exchange", lambda *_: None)
    return layer_groups()


def test_one_step_ends_for_all_groups_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    groups = recording_groups(monkeypatch, stream.clock())
    both = [groups.get(dataclasses.replace(GEOMETRY, window_left=n)) for n in (-1, 7)]
    for group in both:
        warmed_up(group, make_batch())
    for _ in range(3):
        mark = groups.clock.start()
        plans = [group.plan(make_batch(), live=True) for group in both]
        for plan in plans:
            watch = plan.start(0)
            stream.work(1e-3)
            plan.stop(watch)
        stream.work(2e-3)
        groups.end_step(mark)
        stream.catch_up()
    for group in both:
        assert group.recorder is not None
        records = group.recorder.drain().records
        # The last one's times come with the next step.
        assert [r.step_us for r in records] == [pytest.approx(4000)] * 2
        assert [r.attention_us for r in records] == [pytest.approx(1000)] * 2


def test_unsampled_steps_leave_no_events_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    groups = recording_groups(monkeypatch, stream.clock())
    for _ in range(20):
        groups.end_step(groups.clock.start())
    assert len(stream.events) == 1


def test_first_step_of_every_kind_and_config_is_seen_and_not_traced() -> None:
    recorder = Recorder(HandClock(), sample=1.0)
    group = make_group(recorder)
    table = torch.zeros((4, MAX_CONTEXT), dtype=torch.int32)
    kinds = [hybrid_batch(forward_batch(*lens), table) for lens in KINDS]

    def traced() -> list[bool]:
        found = [group.plan(batch, live=True).traced for batch in kinds for _ in range(2)]
        captured = Captured(group.readiness.default, cast(GraphTimer, StreamTimer(Stream(), [0])))
        for _ in range(2):
            step = ReplayStep(([1], [9]), Bucket.of([1], [9]))
            replay(group, step, captured, lambda split: True)
            found.append(group.open)
        group.close_step()
        return [step is not None for step in found]

    assert traced() == [False, True] * 4
    # A graph that was captured again is a new one.
    again = [True] * 6 + [False, True]
    assert traced() == again
    group.active.offer(table_of(group, other_config(group), kinds[0].bucket))
    make_usable(group, kinds[0])
    assert traced() == again
    drained = recorder.drain()
    # Of another config's first steps one asks for it, one has it beside the default in shadow, and
    # its own first one warms up.
    assert (drained.seen, drained.dropped, len(drained.records)) == (28, 0, 20)
    assert {r.config for r in drained.records[14:]} >= {other_config(group).short()}
    # To a tuner a record of step 0 is from a server that traces its first step.
    assert min(record.step for record in drained.records) == 1


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("TUNER_URL", "TABLE", "TRACE_SAMPLE"):
        monkeypatch.delenv(f"POD_ATTN_{name}", raising=False)
    return SimpleNamespace(device="cpu", server_args=SimpleNamespace(port=1), tp_rank=0)


def test_restart_without_the_tuner_starts_from_the_saved_table(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "table.json"
    monkeypatch.setenv("POD_ATTN_TABLE", str(file))
    group = layer_groups().get(GEOMETRY)
    assert group.active.version == 0
    save_file(file, table_of(group, other_config(group), make_batch().bucket))
    with caplog.at_level(logging.INFO):
        again = layer_groups().get(GEOMETRY)
    assert again.active.version == 3
    make_usable(again, make_batch())
    assert again.plan(make_batch(), live=True).config == other_config(group)
    assert f"version 3 from {file}" in caplog.text


def test_corrupt_saved_table_leaves_defaults(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "table.json"
    file.write_bytes(b"\x00garbage")
    monkeypatch.setenv("POD_ATTN_TABLE", str(file))
    group = layer_groups().get(GEOMETRY)
    assert group.plan(make_batch(), live=True).config == group.default
    assert str(file) in caplog.text


def test_layers_of_another_window_have_a_group_and_a_table_file_of_their_own(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_TABLE", str(tmp_path / "table.json"))
    groups = layer_groups()
    window = dataclasses.replace(GEOMETRY, window_left=7)
    assert groups.get(GEOMETRY) is groups.get(GEOMETRY)
    assert groups.get(window).geometry.window_left == 7
    assert groups._table_file(window) == tmp_path / f"table.{window}.json"


def test_without_a_tuner_nothing_is_recorded(runner: Any) -> None:
    groups = layer_groups()
    assert not groups.records
    assert groups.get(GEOMETRY).recorder is None


def test_malformed_setting_stops_the_start(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_TRACE_SAMPLE", "often")
    with pytest.raises(SettingsError, match="POD_ATTN_TRACE_SAMPLE"):
        layer_groups()
