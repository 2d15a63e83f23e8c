"""Scenarios in which a manager of continuous batching is driven request by request."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest import mock

import transformers
from transformers.generation.continuous_batching.cache import PagedAttentionCache

from benchmarks.engines.hf_scenario import (
    PATIENCE_SECONDS,
    TOKENS,
    Models,
    Scenarios,
    Skip,
    equal,
    finished,
    scenario,
)

SCENARIOS: Scenarios = {}


@scenario(SCENARIOS, "prefix sharing")
def _prefix(models: Models) -> None:
    hits: list[Any] = []
    search = PagedAttentionCache.search_prefix_match

    def counted(*args: Any) -> Any:
        hits.append(search(*args))
        return hits[-1]

    prompt, want = models.prompts[2], models.want[2]
    patched = mock.patch.object(PagedAttentionCache, "search_prefix_match", counted)
    with patched, models.manager() as manager:
        for _ in range(2):
            manager.add_request(prompt, max_new_tokens=TOKENS)
            equal(list(finished(manager, 1)[0].generated_tokens), want)
    if not any(hits):
        raise AssertionError(f"no block was shared: {hits}")


@scenario(SCENARIOS, "streaming")
def _streaming(models: Models) -> None:
    with models.manager() as manager:
        name = manager.add_request(models.prompts[0], max_new_tokens=3, streaming=True)
        parts = [list(next(it).generated_tokens) for it in [manager.request_id_iter(name)] * 3]
    equal(parts, [models.want[0][:n] for n in (1, 2, 3)])


@scenario(SCENARIOS, "result handler")
def _handler(models: Models) -> None:
    async def listen(manager: Any) -> list[int]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lengths: list[int] = []

        def heard(output: Any) -> None:
            lengths.append(len(output.generated_tokens))
            if output.is_finished() and not done.done():
                done.set_result(None)

        manager.register_result_handler("handled", heard)
        manager.add_request(
            models.prompts[1], request_id="handled", max_new_tokens=3, streaming=True
        )
        await asyncio.wait_for(done, PATIENCE_SECONDS)
        return lengths

    with models.manager() as manager:
        equal(asyncio.run(listen(manager)), [1, 2, 3])


@scenario(SCENARIOS, "cancel")
def _cancel(models: Models) -> None:
    with models.manager(tokens=400) as manager:
        long = manager.add_request(models.prompts[0], max_new_tokens=400, streaming=True)
        next(manager.request_id_iter(long))
        manager.cancel_request(long)
        manager.add_request(models.prompts[1], max_new_tokens=TOKENS)
        answer = finished(manager, 1)[0]
    equal(list(answer.generated_tokens), models.want[1])


@scenario(SCENARIOS, "fork (num_return_sequences)")
def _fork(models: Models) -> None:
    with models.manager(num_return_sequences=2, do_sample=True, top_k=1) as manager:
        manager.add_requests(inputs=models.prompts, max_new_tokens=TOKENS)
        outputs = finished(manager, 2 * len(models.prompts))
    equal(sorted(list(o.generated_tokens) for o in outputs), sorted(models.want * 2))


@scenario(SCENARIOS, "pause")
def _pause(models: Models) -> None:
    with models.manager(tokens=60) as manager:
        if not hasattr(manager, "pause"):
            raise Skip(f"transformers {transformers.__version__} has no pause()")
        for prompt in models.prompts:
            manager.add_request(prompt, max_new_tokens=60)
        while getattr(manager, "current_batch", 0) < 2:
            time.sleep(0.01)
        with manager.pause():
            before = manager.current_batch
            time.sleep(0.2)
            if manager.current_batch != before:
                raise AssertionError("steps ran during the pause")
        outputs = {len(o.prompt_ids): list(o.generated_tokens) for o in finished(manager, 6)}
    equal([outputs[len(p)][:TOKENS] for p in models.prompts], models.want)
