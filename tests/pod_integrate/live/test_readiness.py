"""Which configs a server keeps ready, and what holds one back."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from support.laboratory import DEFAULT, OTHER, Host, make_batch
from support.layers import run_layers

from pod_integrate.devices.call import Attention
from pod_integrate.devices.cpu.device import CpuDevice, this_cpu
from pod_integrate.errors import MismatchError
from pod_integrate.live import readiness
from pod_integrate.live.readiness import NO_ROOM, REFUSED, WRONG
from pod_integrate.live.verify import LEAST_BYTES
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

LENGTHS = make_batch().lengths
KIND = make_batch().bucket.sides


class Packed(CpuDevice):
    """Has as much memory as told, and counts who asks."""

    def __init__(self) -> None:
        super().__init__(this_cpu().level)
        self.spare, self.asked = LEAST_BYTES, 0

    def spare_bytes(self) -> int | None:
        self.asked += 1
        return self.spare


@pytest.fixture
def packed() -> Packed:
    return Packed()


def counted(host: Host) -> Counter[str]:
    host.group.readiness.count = host.laboratory.count
    return host.failures.counts


def split(tokens: int) -> PodConfig:
    return dataclasses.replace(DEFAULT, decode_split_tokens=tokens)


def test_steps_ask_the_device_for_no_memory(packed: Packed) -> None:
    host = Host(packed)
    ready = host.group.readiness
    ready.prepare(OTHER, LENGTHS)
    before, packed.spare = packed.asked, 0
    host.steps(1)
    for _ in range(50):
        ready.approach(OTHER, KIND, LENGTHS)
    assert packed.asked == before
    host.rounds()
    assert packed.asked == before + 1


def test_a_config_that_waits_for_memory_is_counted_and_tried_once_there_is_some(
    packed: Packed,
) -> None:
    host = Host(packed)
    counts, ready = counted(host), host.group.readiness
    ready.prepare(OTHER, LENGTHS)
    ready.approach(OTHER, KIND, LENGTHS)
    packed.spare = LEAST_BYTES - 1
    host.rounds()
    assert ready.approach(OTHER, KIND, LENGTHS) is None
    host.rounds()
    assert counts[NO_ROOM] == 2
    packed.spare = LEAST_BYTES
    ready.approach(OTHER, KIND, LENGTHS)
    host.rounds()
    assert ready.approach(OTHER, KIND, LENGTHS) is not None and counts[NO_ROOM] == 2


def test_a_config_that_cannot_be_verified_for_want_of_memory_is_counted(packed: Packed) -> None:
    host = Host(packed)
    counts, packed.spare = counted(host), 0
    host.group.readiness.want(OTHER, LENGTHS)
    host.rounds()
    assert counts[NO_ROOM] == 1 and OTHER not in host.group.readiness.refused


def test_a_shadow_without_memory_costs_its_step_nothing(packed: Packed) -> None:
    def work(attention: Attention) -> None:
        if attention.config == OTHER:
            raise torch.OutOfMemoryError("no memory")

    host = Host(packed)
    ready = host.group.readiness
    ready.prepare(OTHER, LENGTHS)
    shadow = ready.approach(OTHER, KIND, LENGTHS)
    run_layers(host.group.plan(make_batch(), live=False)._replace(shadow=shadow), work=work)
    assert not ready.owed and OTHER not in ready.refused
    assert ready.approach(OTHER, KIND, LENGTHS) is None


def test_what_is_kept_ready_is_bounded_and_comes_back_when_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "MOST_READY", 3)
    ready = Host().group.readiness
    configs = [split(64 * n) for n in range(1, 6)]
    for config in configs:
        ready.prepare(config, LENGTHS)
    ready.prepare(configs[2], LENGTHS)
    ready.prepare(split(4096), LENGTHS)
    assert [c for c in configs if ready.verified(c) is not None] == [configs[2], configs[4]]
    assert ready.verified(DEFAULT) is not None
    ready.want(configs[0], LENGTHS)
    assert ready.wanted() == [(configs[0], LENGTHS)]


def test_one_place_on_the_host_serves_all_verdicts() -> None:
    host = Host(made := _Counting())
    for tokens in (64, 128, 192):
        host.group.readiness.prepare(split(tokens), LENGTHS)
    assert made.landings == 1


class _Counting(Packed):
    landings = 0

    def landing(self) -> torch.Tensor:
        self.landings += 1
        return super().landing()


class Wrong(Packed):
    """Every config but the default computes something else."""

    def attention(self, geometry: Geometry, config: PodConfig | None = None) -> Attention:
        found = super().attention(geometry, config)
        return found if config in (None, DEFAULT) else _Wrong(found)


class _Wrong(Attention):
    def __init__(self, inner: Attention) -> None:
        super().__init__(inner.geometry, inner.config)
        self._inner = inner

    def __call__(self, call: object) -> None:
        self._inner(call)  # type: ignore[arg-type]
        call.out.add_(1.0)  # type: ignore[attr-defined]


def test_what_was_found_wrong_is_counted_and_stays_a_mismatch_for_who_asks_later() -> None:
    host = Host(Wrong())
    counts, ready = counted(host), host.group.readiness
    ready.want(OTHER, LENGTHS)
    host.rounds()
    assert (counts[REFUSED], ready.wrong) == (1, {OTHER})
    with pytest.raises(MismatchError, match="was refused"):
        ready.prepare(OTHER, LENGTHS)


def test_a_tables_config_that_differs_on_a_live_step_is_counted() -> None:
    host = Host()
    counts, ready = counted(host), host.group.readiness
    ready.prepare(OTHER, LENGTHS)
    shadow = ready.approach(OTHER, KIND, LENGTHS)
    plan = host.group.plan(make_batch(), live=False)._replace(shadow=shadow)
    run_layers(plan, answer=lambda attention: 1.5 if attention.config == OTHER else 1.0)
    host.clock.harvest()
    assert (counts[REFUSED], counts[WRONG], ready.wrong) == (1, 1, {OTHER})


def test_a_config_that_cannot_run_here_is_refused_and_not_called_wrong() -> None:
    host = Host()
    counts, ready = counted(host), host.group.readiness
    ready.refuse(OTHER, "it does not fit")
    assert (counts[REFUSED], counts[WRONG]) == (1, 0)
