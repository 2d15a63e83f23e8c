"""Measuring with the real op on small shapes."""

from __future__ import annotations

import pytest
import torch

from pod_integrate.builds import native
from pod_integrate.devices.registry import device_named
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.keys import Geometry
from tuner.measure import bench as bench_module
from tuner.measure.bench import MismatchError, OpBench, sampled_rows
from tuner.measure.worker import describe, measure
from tuner.messages import StepLengths, Task

GEOMETRY = Geometry(
    num_q_heads=4, num_kv_heads=2, head_dim=32, dtype="fp32", kv_dtype="fp32", page_size=4,
    window_left=40,
)  # fmt: skip
LENGTHS = StepLengths([17, 1, 1, 3], [60, 33, 1, 3])


def default() -> dict[str, object]:
    return device_named("cpu").default_config(GEOMETRY).to_dict()


def make_task(**changes: object) -> Task:
    fields: dict[str, object] = {
        "id": "t", "geometry": str(GEOMETRY),
        "device": str(device_named("cpu").key_of(1)),
        "build": native.build_id("cpu"), "bucket": "p16@64+d2@16", "number": 1, "phase": "screen",
        "baseline": default(), "candidate": default() | {"ctas_per_sm": 1}, "batches": [LENGTHS],
        "step_pairs": 4, "seconds": 0.5, "verify": True, "layers": 3, "seed": 5,
    }  # fmt: skip
    return Task(**(fields | changes))  # type: ignore[arg-type]


def test_sampled_rows_alone_equal_the_same_rows_of_the_whole_batch() -> None:
    case = make_batch(LENGTHS.q_lens, LENGTHS.kv_lens, geometry=GEOMETRY, seed=1)
    whole = attention_reference(
        case.q, case.k_cache, case.v_cache, case.batch, window_left=40, logit_cap=0.0
    )
    rows, single = sampled_rows(case.batch, GEOMETRY, seed=2)
    part = attention_reference(
        case.q[rows], case.k_cache, case.v_cache, single, window_left=40, logit_cap=0.0
    )
    torch.testing.assert_close(part.out, whole.out[rows], rtol=1e-12, atol=1e-12)
    assert len(set(rows.tolist())) == len(rows) == sum(LENGTHS.q_lens)


def test_sampling_is_bounded() -> None:
    geometry = Geometry.uniform((1, 1, 16), "fp32", page_size=1)
    case = make_batch([500], [500], geometry=geometry, seed=1)
    rows, _ = sampled_rows(case.batch, geometry, seed=2)
    assert len(rows) == bench_module.VERIFY_ROWS
    assert {0, 499} <= set(rows.tolist())


def test_a_right_config_is_verified_and_measured_in_pairs() -> None:
    report = measure(make_task(), "w", OpBench())
    assert (report.outcome, report.reason) == ("measured", "")
    assert 1 <= len(report.pairs) <= 4
    assert all(pair.baseline_us > 0 and pair.candidate_us > 0 for pair in report.pairs)
    assert {pair.batch for pair in report.pairs} == {LENGTHS.digest}


def test_a_kernel_that_answers_wrongly_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bench_module._run

    def wrong(*args: object) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = right(*args)  # type: ignore[arg-type]
        out[3, 1, 5] += 1e-2
        return out, lse

    monkeypatch.setattr(bench_module, "_run", wrong)
    with pytest.raises(MismatchError, match="largest error is 0.01"):
        OpBench().verify(
            device_named("cpu").default_config(GEOMETRY),
            GEOMETRY, LENGTHS, seed=1,
        )  # fmt: skip
    report = measure(make_task(), "w", OpBench())
    assert report.outcome == "mismatch" and not report.pairs


def test_a_row_without_keys_is_no_mismatch_and_nan_is_one() -> None:
    nothing = torch.tensor([-torch.inf, 1.0])
    bench_module._require_close(nothing, nothing.clone(), 1e-4, "lse")
    with pytest.raises(MismatchError):
        bench_module._require_close(torch.tensor([torch.nan]), torch.tensor([1.0]), 1e-4, "out")
    with pytest.raises(MismatchError):
        bench_module._require_close(torch.tensor([torch.inf]), torch.tensor([1.0]), 1e-4, "out")


def test_an_infeasible_candidate_is_reported_with_the_arithmetic() -> None:
    candidate = default() | {"prefill": {"q_rows": 4096, "kv_rows": 4096, "stages": 1, "warps": 1}}
    report = measure(make_task(candidate=candidate), "w", OpBench())
    assert report.outcome == "infeasible" and "KiB" in report.reason


def test_a_bug_in_a_task_is_reported_as_failed_and_ends_nothing() -> None:
    report = measure(make_task(batches=[]), "w", OpBench())
    assert report.outcome == "failed" and "IndexError" in report.reason


def test_this_machine_can_measure_its_own_traces() -> None:
    info = describe("w", device_named("cpu"))
    task = make_task()
    assert info.can_measure(task.key.scope)
