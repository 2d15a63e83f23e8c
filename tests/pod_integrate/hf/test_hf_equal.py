"""Greedy tokens of every served model, and upstream's batching scenarios, on the installed version.

benchmarks/hf_equal.py does the same on the other supported versions.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.engines import hf_equal, hf_models, hf_scenario, hf_scenarios


@pytest.mark.parametrize("name", list(hf_models.MODELS))
def test_greedy_tokens_equal_stock_attention_in_every_way_to_generate(name: str) -> None:
    cases = hf_equal.compare(name)
    assert len(cases) == 6
    assert [case for case in cases if not case.equal or case.detail] == []


@pytest.mark.parametrize("name", list(hf_models.MODELS))
def test_compared_tokens_depend_on_attention(name: str) -> None:
    model = hf_models.build(name, hf_models.reference_of(name))
    prompt = hf_models.random_prompts((37,))[0]
    # The same last token and other ones before it: without attention the answer would be the same.
    (want, other) = (
        hf_models.greedy(model, [p], 6)[0] for p in (prompt, [*prompt[::-1], prompt[-1]])
    )
    assert want != other and len(set(want)) > 1


@pytest.fixture(scope="module")
def models() -> hf_scenario.Models:
    return hf_scenario.Models()


@pytest.mark.parametrize("name", list(hf_scenarios.SCENARIOS))
def test_batching_scenario(name: str, models: hf_scenario.Models) -> None:
    result, reason = hf_scenarios.run(name, models)
    if result == "skipped":
        pytest.skip(reason)
    assert result == "passed", reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_as_close_to_fp32_as_those_of_stock_attention(
    dtype: torch.dtype,
) -> None:
    ids, mask = hf_models.padded(hf_models.random_prompts((5, 37)))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)

    def last_logits(implementation: str, dtype: torch.dtype) -> torch.Tensor:
        model = hf_models.build("qwen3", implementation, dtype=dtype)
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions)
        last: torch.Tensor = out.logits[:, -1].float()
        return last

    exact = last_logits("sdpa", torch.float32)
    stock = (last_logits("sdpa", dtype) - exact).abs().max()
    assert (last_logits("pod", dtype) - exact).abs().max() <= 2 * stock
