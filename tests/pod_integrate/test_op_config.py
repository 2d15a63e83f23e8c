"""Every field of PodConfig changes what runs, and none changes the answer."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from support import configs
from support.plans import WorkerTickets, plan, tickets

from pod_integrate.devices.cpu.target import scratch_bytes
from pod_integrate.devices.registry import device_of, target_of
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import DeviceKey, Geometry

GEOMETRY = Geometry.uniform((48, 2, 64), "fp32")
BASE = PodConfig(
    prefill=TileConfig(q_rows=64, kv_rows=32),
    decode=TileConfig(q_rows=32, kv_rows=32),
    ctas_per_sm=1,
    max_prefill_waves=0,
)
changed = functools.partial(configs.changed, BASE)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_batch([40] + [1] * 6, [400] + [300] * 6, geometry=GEOMETRY, seed=0)


def order(logs: list[WorkerTickets]) -> list[list[tuple[str, int]]]:
    return [log.order for log in logs]


@pytest.mark.parametrize(
    "fields",
    [
        {"prefill": {"q_rows": 128}},
        {"decode": {"q_rows": 16}},
        {"decode_split_tokens": 64},
        {"max_prefill_waves": 32},
    ],
    ids=str,
)
def test_field_changes_the_items(case: Case, fields: dict[str, Any]) -> None:
    base = plan(case.batch, GEOMETRY, BASE, threads=2)
    assert plan(case.batch, GEOMETRY, changed(**fields), threads=2) != base


def test_prefill_kv_rows_sets_the_grain_of_splits(case: Case) -> None:
    for kv_rows in (32, 96):
        config = changed(max_prefill_waves=60, prefill={"kv_rows": kv_rows})
        for item in plan(case.batch, GEOMETRY, config, threads=2):
            if item.kind == "prefill":
                assert item.kv0 % kv_rows == 0


def test_ctas_per_sm_bounds_prefill_splits(case: Case) -> None:
    one, two = (
        plan(case.batch, GEOMETRY, changed(max_prefill_waves=20, ctas_per_sm=n), threads=2)
        for n in (1, 2)
    )
    assert len(two) > len(one)


def test_items_cover_every_row_and_key_once(case: Case) -> None:
    config = changed(max_prefill_waves=9, decode_split_tokens=64)
    items = plan(case.batch, GEOMETRY, config, threads=2)
    group = 24
    q_lens, kv_lens = case.batch.lengths
    for b, (q_len, kv_len) in enumerate(zip(q_lens, kv_lens, strict=True)):
        for head in range(2):
            mine = [i for i in items if (i.request, i.kv_head) == (b, head)]
            for row in range(q_len * group):
                spans = sorted((i.kv0, i.kv1) for i in mine if i.row0 <= row < i.row0 + i.rows)
                assert spans[0][0] == 0
                assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
                assert spans[-1][1] >= kv_len - q_len + row // group + 1


@pytest.mark.parametrize(("ratio", "run"), [((1, 1), 1), ((3, 1), 3), ((1, 2), 1)])
def test_explicit_ratio_orders_the_tickets(
    case: Case, ratio: tuple[int, int], run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    config = changed(prefill_ctas=ratio[0], decode_ctas=ratio[1])
    (log,) = tickets(case, config)
    kinds = [kind for kind, _ in log.order][: 2 * sum(ratio)]
    assert kinds == (["prefill"] * ratio[0] + ["decode"] * ratio[1]) * 2


def test_proportional_ratio_ends_both_queues_together(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    (log,) = tickets(case, changed())
    kinds = [kind for kind, _ in log.order]
    half = len(kinds) // 2
    decodes = kinds.count("decode")
    assert abs(kinds[:half].count("decode") - decodes / 2) <= 1
    assert kinds[0] == "prefill" and "prefill" in kinds[-4:]


def test_virtual_decode_takes_neighbours_at_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    (log,) = tickets(case, changed(prefill_ctas=1, decode_ctas=1, virtual_decode=3))
    assert [kind for kind, _ in log.order][:8] == (["prefill"] + ["decode"] * 3) * 2


def test_two_ctas_carry_decode_items_into_prefill_items(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    (one,), (two,) = (tickets(case, changed(ctas_per_sm=n)) for n in (1, 2))
    assert one.rows_ahead == 0
    assert two.rows_ahead > 0
    assert sorted(one.order) == sorted(two.order)


def test_serial_ends_prefill_before_any_decode(case: Case) -> None:
    for log in tickets(case, changed(strategy="serial")):
        kinds = [kind for kind, _ in log.order]
        assert kinds == sorted(kinds, reverse=True)


def test_streams_keep_ops_on_their_own_workers(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_THREADS", "2")
    kinds = [{kind for kind, _ in log.order} for log in tickets(case, changed(strategy="streams"))]
    assert kinds == [{"prefill"}, {"decode"}]
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    (only,) = tickets(case, changed(strategy="streams"))
    serial = tickets(case, changed(strategy="serial"))
    assert only.order == serial[0].order


CHANGES: list[dict[str, Any]] = [
    {"prefill": {"q_rows": 16, "kv_rows": 16}},
    {"prefill": {"kv_rows": 112, "stages": 3}},
    {"decode": {"q_rows": 16, "kv_rows": 80, "stages": 4}},
    {"ctas_per_sm": 2, "decode_split_tokens": 64},
    {"ctas_per_sm": 2, "prefill_ctas": 2, "decode_ctas": 3, "virtual_decode": 2},
    {"max_prefill_waves": 64},
    {"strategy": "serial"},
    {"strategy": "streams", "decode_split_tokens": 16},
]


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_no_field_changes_the_answer(case: Case, fields: dict[str, Any]) -> None:
    base = hybrid_attention(*case, config=BASE)
    got = hybrid_attention(*case, config=changed(**fields))
    assert torch.allclose(got.out, base.out, rtol=0, atol=2e-6)
    assert torch.allclose(got.lse, base.lse, rtol=0, atol=4e-6)


@pytest.mark.parametrize("capability", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("dim", [32, 64, 128, 256])
def test_default_config_is_feasible_everywhere(capability: str, dim: int) -> None:
    geometry = dataclasses.replace(GEOMETRY, head_dim=dim)
    device = DeviceKey("some-cpu", capability, 4)
    target_of(device).require_feasible(target_of(device).default_config(geometry), geometry)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prefill": {"warps": 2}}, "prefill.warps is 2"),
        ({"decode": {"warps": 4}}, "decode.warps is 4"),
        ({"ctas_per_sm": 3}, "ctas_per_sm is 3"),
        ({"prefill": {"q_rows": 4096}}, "KiB of L2"),
        ({"decode": {"q_rows": 80}}, "decode.q_rows is 80"),
    ],
)
def test_infeasible_config_raises_before_launch(
    case: Case, fields: dict[str, Any], words: str
) -> None:
    out = torch.full_like(case.q, 7.0)
    with pytest.raises(ConfigInfeasibleError, match=words):
        hybrid_attention(*case, config=changed(**fields), out=out)
    assert (out == 7.0).all()


def test_infeasible_message_holds_the_arithmetic() -> None:
    config = changed(prefill={"q_rows": 2048})
    device = device_of(torch.device("cpu")).key
    prefill, decode = scratch_bytes(config, GEOMETRY)
    with pytest.raises(ConfigInfeasibleError) as caught:
        target_of(device).require_feasible(config, GEOMETRY)
    assert f"{prefill >> 10} KiB (prefill tile) + {decode >> 10} KiB" in str(caught.value)
    assert "Lower prefill.q_rows (2048)" in str(caught.value)
