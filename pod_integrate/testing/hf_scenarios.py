"""What upstream's continuous-batching suite checks, re-created with a small model on `pod`.

Each scenario raises when it fails and `Skip` when this version of transformers lacks what it is
about. `benchmarks/hf_equal.py` runs them on several versions, the test suite on the installed one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import transformers
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager

from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.testing import hf_models
from pod_integrate.testing.hf_models import batched, batching, generation

TOKENS = 16
LENGTHS = (5, 37, 90, 64, 33, 1)
_PATIENCE_SECONDS = 120.0


class Skip(Exception):
    """This version of transformers does not have what a scenario is about."""


class Models:
    """One model on `pod` and on stock attention, prompts and their greedy answers."""

    def __init__(self) -> None:
        self.pod = hf_models.build("llama", "pod")
        self.stock = hf_models.build("llama", "sdpa")
        self.prompts = hf_models.random_prompts(LENGTHS)
        self.want = [hf_models.greedy(self.stock, [p], TOKENS)[0] for p in self.prompts]

    def manager(self, tokens: int = TOKENS, **extra: Any) -> Any:
        """A manager of the model on `pod` that stops when the block ends."""
        return self.pod.continuous_batching_context_manager(
            generation_config=generation(tokens, **extra), continuous_batching_config=batching()
        )

    def check(self, got: Any) -> None:
        """Raise AssertionError unless the answers to all prompts are as stock attention's."""
        _equal(got, self.want)


SCENARIOS: dict[str, Callable[[Models], None]] = {}


def _scenario(name: str) -> Callable[[Callable[[Models], None]], Callable[[Models], None]]:
    def keep(function: Callable[[Models], None]) -> Callable[[Models], None]:
        SCENARIOS[name] = function
        return function

    return keep


def _equal(got: Any, want: Any) -> None:
    if got != want:
        raise AssertionError(f"got {got}, stock attention gives {want}")


def _finished(manager: Any, count: int) -> list[Any]:
    outputs: list[Any] = []
    end = time.monotonic() + _PATIENCE_SECONDS
    while len(outputs) < count and time.monotonic() < end:
        output = manager.get_result(timeout=1)
        if output is not None and output.is_finished():
            outputs.append(output)
    if len(outputs) < count:
        raise AssertionError(f"{len(outputs)} of {count} requests finished in time")
    return outputs


def _parity(sharing: bool, scheduler: str, chunk: int) -> None:
    def run(models: Models) -> None:
        asked = {"allow_block_sharing": sharing, "scheduler_type": scheduler}
        models.check(batched(models.pod, models.prompts, TOKENS, max_batch_tokens=chunk, **asked))

    SCENARIOS[f"parity: sharing {sharing}, {scheduler}, chunks of {chunk}"] = run


for _each in itertools.product((True, False), ("fifo", "prefill_first"), (16, 64, 1024)):
    _parity(*_each)


@_scenario("hybrid model with sliding layers")
def _sliding(models: Models) -> None:
    stock, pod = hf_models.build("gemma3", "sdpa"), hf_models.build("gemma3", "pod")
    alone = [hf_models.greedy(stock, [p], TOKENS)[0] for p in models.prompts]
    _equal(batched(pod, models.prompts, TOKENS, max_batch_tokens=40), alone)


@_scenario("prefix sharing")
def _prefix(models: Models) -> None:
    hits: list[Any] = []
    search = PagedAttentionCache.search_prefix_match

    def counted(*args: Any) -> Any:
        hits.append(search(*args))
        return hits[-1]

    prompt, want = models.prompts[2], models.want[2]
    with mock.patch.object(PagedAttentionCache, "search_prefix_match", counted):
        with models.manager() as manager:
            for _ in range(2):
                manager.add_request(prompt, max_new_tokens=TOKENS)
                _equal(list(_finished(manager, 1)[0].generated_tokens), want)
    if not any(hits):
        raise AssertionError(f"no block was shared: {hits}")


@_scenario("streaming")
def _streaming(models: Models) -> None:
    with models.manager() as manager:
        name = manager.add_request(models.prompts[0], max_new_tokens=3, streaming=True)
        parts = [list(next(it).generated_tokens) for it in [manager.request_id_iter(name)] * 3]
    _equal(parts, [models.want[0][:n] for n in (1, 2, 3)])


@_scenario("result handler")
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
        await asyncio.wait_for(done, _PATIENCE_SECONDS)
        return lengths

    with models.manager() as manager:
        _equal(asyncio.run(listen(manager)), [1, 2, 3])


@_scenario("cancel")
def _cancel(models: Models) -> None:
    with models.manager(tokens=400) as manager:
        long = manager.add_request(models.prompts[0], max_new_tokens=400, streaming=True)
        next(manager.request_id_iter(long))
        manager.cancel_request(long)
        manager.add_request(models.prompts[1], max_new_tokens=TOKENS)
        answer = _finished(manager, 1)[0]
    _equal(list(answer.generated_tokens), models.want[1])


@_scenario("log-probabilities")
def _logprobs(models: Models) -> None:
    runs = []
    for model in (models.stock, models.pod):
        out = model.generate_batch(
            inputs=models.prompts,
            generation_config=generation(TOKENS),
            continuous_batching_config=batching(return_logprobs=True),
        )
        runs.append([p for answer in out.values() for p in answer.logprobs])
    worst = max(abs(a - b) for a, b in zip(*runs, strict=True))
    if worst > 1e-4:
        raise AssertionError(f"log-probabilities differ by {worst}")


@_scenario("fork (num_return_sequences)")
def _fork(models: Models) -> None:
    with models.manager(num_return_sequences=2, do_sample=True, top_k=1) as manager:
        manager.add_requests(inputs=models.prompts, max_new_tokens=TOKENS)
        outputs = _finished(manager, 2 * len(models.prompts))
    _equal(sorted(list(o.generated_tokens) for o in outputs), sorted(models.want * 2))


def _offload(models: Models, **extra: Any) -> None:
    known = ("offload_requests", "offload_one_request")
    name = next(name for name in known if hasattr(OffloadingManager, name))
    # Six requests that start with a page each and grow to three do not fit into ten together.
    prompts, tokens = hf_models.random_prompts((15,) * 6), 30
    want = [hf_models.greedy(models.stock, [p], tokens)[0] for p in prompts]
    with mock.patch.object(
        OffloadingManager, name, autospec=True, side_effect=getattr(OffloadingManager, name)
    ) as offload:
        asked = {"num_blocks": 10, "safety_margin": 0.0, **extra}
        _equal(batched(models.pod, prompts, tokens, **asked), want)
    if not offload.call_count:
        raise AssertionError("nothing was offloaded; the scenario needs fewer blocks")


@_scenario("offload: requests start over")
def _soft_reset(models: Models) -> None:
    _offload(models)


@_scenario("offload to host memory")
def _cpu_offload(models: Models) -> None:
    if not torch.cuda.is_available():
        raise Skip("upstream page-locks the memory that it offloads to, which needs a GPU")
    _offload(models, cpu_offload_space=0.05)


@_scenario("pause")
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
        outputs = {len(o.prompt_ids): list(o.generated_tokens) for o in _finished(manager, 6)}
    _equal([outputs[len(p)][:TOKENS] for p in models.prompts], models.want)


@_scenario("compiled forward")
def _compile(models: Models) -> None:
    compiled = transformers.CompileConfig(
        fullgraph=False, dynamic=True, backend="eager", mode=None, options=None
    )
    # Two prompts of one step each: tracing takes seconds.
    short = batched(models.pod, models.prompts[:2], 4, varlen_compile_config=compiled)
    _equal(short, [answer[:4] for answer in models.want[:2]])


@_scenario("sampling from one candidate")
def _sampling(models: Models) -> None:
    out = models.pod.generate_batch(
        inputs=models.prompts,
        generation_config=generation(TOKENS, do_sample=True, top_k=1),
        continuous_batching_config=batching(),
    )
    models.check([list(answer.generated_tokens) for answer in out.values()])


@_scenario("persistent manager")
def _persistent(models: Models) -> None:
    for _ in range(2):
        out = models.pod.generate_batch(
            inputs=models.prompts,
            generation_config=generation(TOKENS),
            continuous_batching_config=batching(),
            persistent_manager=True,
        )
        models.check([list(answer.generated_tokens) for answer in out.values()])
    models.pod.destroy_cached_continuous_batching_manager()


@_scenario("attention is `pod` again after a run")
def _restored(models: Models) -> None:
    batched(models.pod, models.prompts[:1], 1)
    _equal(models.pod.config._attn_implementation, "pod")


@_scenario("accelerator graphs are refused")
def _graphs(models: Models) -> None:
    try:
        batched(models.pod, models.prompts[:1], 1, use_cuda_graph=True)
    except UnsupportedFeatureError:
        return
    raise AssertionError("use_cuda_graph=True was accepted")


def run(name: str, models: Models) -> tuple[str, str]:
    """("passed" | "skipped" | "failed", reason) of one scenario."""
    try:
        SCENARIOS[name](models)
    except Skip as reason:
        return "skipped", str(reason)
    except Exception as error:
        # Whatever a scenario raises is its result.
        return "failed", f"{type(error).__name__}: {error}"[:400]
    return "passed", ""
