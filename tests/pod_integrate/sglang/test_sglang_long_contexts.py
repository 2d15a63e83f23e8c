"""Room of a captured grid for very long contexts is worked out from a few of their keys."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.engines.sglang import decode_room
from pod_integrate.engines.sglang.decode_room import decode_capacity
from pod_integrate.engines.sglang.speculation import verify_parts
from pod_integrate.terms.keys import Geometry

LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SHIPPED = dataclasses.replace(
    Variant.parse("bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1").config(), decode_split_tokens=2048
)
H100_SMS = 132


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    size=st.integers(1, 40),
    context=st.integers(1, 1 << 15),
    group=st.sampled_from([1, 3, 8, 20]),
    virtual_decode=st.sampled_from([1, 4, 8]),
    split=st.sampled_from([0, 64, 512, 4096]),
    tokens=st.sampled_from([1, 1, 4, 5]),
    num_sms=st.sampled_from([2, 16, 132]),
)
def test_room_of_a_long_context_is_that_of_all_its_keys(
    size: int,
    context: int,
    group: int,
    virtual_decode: int,
    split: int,
    tokens: int,
    num_sms: int,
) -> None:
    geometry = dataclasses.replace(LLAMA, num_q_heads=8 * group)
    config = dataclasses.replace(SHIPPED, decode_split_tokens=split, virtual_decode=virtual_decode)
    parts = verify_parts(tokens, group, config.decode.q_rows)
    asked = geometry, [config], size, context, num_sms, parts
    found = decode_capacity(*asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_room, "_enough", lambda config, context, *_: context)
        assert found == decode_capacity(*asked)


def test_room_of_a_million_keys_is_found_without_planning_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        found = plan_batch(*args, **kwargs)
        planned.append(found.words.numel())
        return found

    monkeypatch.setattr(decode_room, "plan_batch", counted)
    capacity = decode_capacity(LLAMA, [SHIPPED], 256, 1 << 20, H100_SMS, [4])
    # Of ten words and more an item, where a million keys are 512 parts each.
    assert max(planned) < 128 * capacity.decode_ctas
