"""The cases and the law that both kernels' accuracy is judged by."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy.accuracy_cases import LONG, SHORT, AccuracyCase, all_cases
from benchmarks.accuracy.accuracy_law import exact_answer, judge, verdict
from pod_integrate.measure.batches import Case
from pod_integrate.measure.reference import attention_reference
from pod_integrate.op import Result

CASE = AccuracyCase(op="prefill", keys=300, logit=8, pattern="random", window=100, sink=True)


def rounded(case: AccuracyCase, inputs: Case) -> Result:
    """The exact answer, as float32 holds it."""
    exact = attention_reference(*inputs, **case.features(torch.device("cpu")))
    return Result(exact.out.to(inputs.q.dtype), exact.lse.float())


def test_exact_answer_is_the_references() -> None:
    inputs, features = CASE.make(), CASE.features(torch.device("cpu"))
    exact, reference = exact_answer(inputs, **features), attention_reference(*inputs, **features)
    assert torch.allclose(exact.out, reference.out, rtol=0, atol=1e-13)
    assert torch.allclose(exact.lse, reference.lse, rtol=0, atol=1e-13)
    assert (exact.mass >= exact.out.abs() - 1e-13).all()


def test_rounded_answer_is_within_the_law_and_a_wrong_one_is_not() -> None:
    assert judge(CASE, rounded).holds
    inputs = CASE.make()
    exact, right = exact_answer(inputs, **CASE.features(torch.device("cpu"))), rounded(CASE, inputs)
    wrong = right.out.clone()
    wrong[3, 1, 7] += 1e-5
    assert not verdict(CASE, right._replace(out=wrong), exact).holds
    wrong[3, 1, 7] = torch.nan
    assert not verdict(CASE, right._replace(out=wrong), exact).holds
    assert not verdict(CASE, right._replace(lse=right.lse + 2e-5), exact).holds


@pytest.mark.parametrize("pattern", ["level", "rising", "falling", "random", "both signs"])
def test_logits_of_a_case_are_what_it_says(pattern: str) -> None:
    case = AccuracyCase(op="decode", keys=2000, logit=60, pattern=pattern)  # type: ignore[arg-type]
    exact = exact_answer(case.make())
    # Sums of products of one sign: the largest of them is the largest logit.
    assert 40 < float(exact.products.max()) < 90
    assert float(exact.lse.min()) > 40


def test_cases_reach_128k_keys_and_a_million_in_every_dtype_with_unique_names() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    for dtype in ("fp32", "bf16", "fp16"):
        mine = [case for case in cases if case.dtype == dtype]
        assert {SHORT, LONG} < {case.keys for case in mine}
        assert {-1e6, 1e6} < {case.logit for case in mine}
        assert {(case.op, case.split) for case in mine if case.keys == LONG} >= {
            (op, split) for op in ("decode", "prefill") for split in (False, True)
        }
    assert {case.dtype for case in all_cases(dtypes=("bf16", "fp16"))} == {"bf16", "fp16"}
