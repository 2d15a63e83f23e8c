"""The model of a server with chunked prefill keeps its rules, and reads no more than it admits."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from pod_integrate.errors import SettingsError
from pod_integrate.replay.requests import BLOCK_TOKENS, Request
from pod_integrate.replay.serving import Rules, Serving, Step


def log(count: int = 60, seed: int = 0) -> list[Request]:
    pick = random.Random(seed)
    return [Request(0.0, pick.randint(1, 900), pick.randint(1, 60)) for _ in range(count)]


def run(requests: list[Request], **rules: object) -> list[Step]:
    return list(Serving(Rules(**rules)).steps(requests))  # type: ignore[arg-type]


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("chunk", [64, 256, 4096])
def test_every_prompt_is_prefilled_once_and_every_answer_decoded(chunk: int, mixed: bool) -> None:
    requests = log()
    prefilled = decoded = 0
    for step in run(requests, chunk=chunk, max_running=8, budget=5000, mixed=mixed):
        assert all(0 < q <= kv for q, kv in zip(step.q_lens, step.kv_lens, strict=True))
        rows = len(step.q_lens)
        assert rows <= 8 and sum(step.kv_lens) <= 5000
        assert sum(step.q_lens) <= max(chunk, 8)
        prefilled += sum(step.q_lens)
    # The prompt's last token gives the answer's first one.
    decoded = sum(request.answer_tokens - 1 for request in requests)
    assert prefilled - decoded == sum(request.prompt_tokens for request in requests)


def test_one_request_is_cut_in_chunks_and_then_decoded() -> None:
    steps = run([Request(0.0, 100, 3)], chunk=64)
    assert steps == [
        Step([64], [64]),
        Step([36], [100]),
        Step([1], [101], decodes=1),
        Step([1], [102], decodes=1),
    ]


def test_running_requests_join_a_prefill_and_take_their_tokens_of_its_chunk() -> None:
    requests = [Request(0.0, 16, 9), Request(0.0, 100, 1)]
    mixed = run(requests, chunk=32)
    assert mixed[0] == Step([16, 16], [16, 16])
    assert mixed[1] == Step([31, 1], [47, 17], decodes=1)
    apart = run(requests, chunk=32, mixed=False)
    assert all(set(step.q_lens) == {1} or min(step.q_lens) > 1 for step in apart)


def test_requests_wait_for_the_budget_and_those_beyond_it_are_left_out() -> None:
    model = Serving(Rules(chunk=1024, budget=100))
    requests = [Request(0.0, 60, 5), Request(0.0, 400, 1), Request(0.0, 60, 5)]
    steps = list(model.steps(requests))
    assert (model.requests, model.too_long) == (2, 1)
    assert max(len(step.q_lens) for step in steps) == 1


def test_a_log_is_read_as_far_as_requests_are_admitted() -> None:
    read = 0

    def endless() -> Iterator[Request]:
        nonlocal read
        while True:
            read += 1
            yield Request(0.0, 50, 1000)

    steps = Serving(Rules(chunk=256, max_running=4)).steps(endless())
    for _ in range(500):
        next(steps)
    # Four run, and the next one waits at the door.
    assert read == 5


def test_a_prompt_starts_behind_blocks_that_were_seen_until_the_budget_holds_others() -> None:
    blocks = (1, 2, 3)
    one, again = (Request(0.0, 3 * BLOCK_TOKENS, 1, blocks) for _ in range(2))
    other = Request(0.0, 3 * BLOCK_TOKENS, 1, (1, 9))
    steps = run([one, again, other], chunk=4096, max_running=1, budget=1 << 16)
    whole = 3 * BLOCK_TOKENS
    # At least one token is left to attend.
    assert steps == [Step([whole], [whole]), Step([1], [whole]), Step([whole - 512], [whole])]
    assert run([one, again], chunk=4096, reuse=False)[0] == Step([whole] * 2, [whole] * 2)
    tight = run([one, other, again], chunk=4096, max_running=1, budget=whole + 1)
    assert tight[2] == Step([whole - 512], [whole])


def test_lengths_are_scaled_and_never_vanish() -> None:
    assert run([Request(0.0, 100, 1), Request(0.0, 1, 1)], scale=0.25) == [Step([25, 1], [25, 1])]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"chunk": 8}, "chunk must be at least 16"),
        ({"max_running": 0}, "max running requests must be 1 to 4095"),
        ({"budget": 1}, "budget must be at least 2"),
        ({"scale": 0.0}, "scale must be above 0"),
    ],
)
def test_rules_that_no_server_has_are_refused(rules: dict[str, float], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Rules(**rules)  # type: ignore[arg-type]
