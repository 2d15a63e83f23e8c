"""What upstream's continuous-batching suite checks, re-created with a small model on `pod`.

Each scenario raises when it fails and `Skip` when this version of transformers lacks what it is
about. `benchmarks/hf_equal.py` runs them on several versions, the test suite on the installed one.
"""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import transformers
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager

from benchmarks.engines import hf_models, hf_scenarios_managed
from benchmarks.engines.hf_models import batched, batching, generation
from benchmarks.engines.hf_scenario import TOKENS, Models, Scenarios, Skip, equal, scenario
from pod_integrate.devices.registry import has_gpu
from pod_integrate.errors import UnsupportedFeatureError

SCENARIOS: Scenarios = {}


def _parity(sharing: bool, scheduler: str, chunk: int) -> None:
    def run(models: Models) -> None:
        asked = {"allow_block_sharing": sharing, "scheduler_type": scheduler}
        models.check(batched(models.pod, models.prompts, TOKENS, max_batch_tokens=chunk, **asked))

    SCENARIOS[f"parity: sharing {sharing}, {scheduler}, chunks of {chunk}"] = run


for _each in itertools.product((True, False), ("fifo", "prefill_first"), (16, 64, 1024)):
    _parity(*_each)


@scenario(SCENARIOS, "hybrid model with sliding layers")
def _sliding(models: Models) -> None:
    stock, pod = hf_models.build("gemma3", "sdpa"), hf_models.build("gemma3", "pod")
    alone = [hf_models.greedy(stock, [p], TOKENS)[0] for p in models.prompts]
    equal(batched(pod, models.prompts, TOKENS, max_batch_tokens=40), alone)


@scenario(SCENARIOS, "log-probabilities")
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
        equal(batched(models.pod, prompts, tokens, **asked), want)
    if not offload.call_count:
        raise AssertionError("nothing was offloaded; the scenario needs fewer blocks")


@scenario(SCENARIOS, "offload: requests start over")
def _soft_reset(models: Models) -> None:
    _offload(models)


@scenario(SCENARIOS, "offload to host memory")
def _cpu_offload(models: Models) -> None:
    if not has_gpu():
        raise Skip("upstream page-locks the memory that it offloads to, which needs a GPU")
    _offload(models, cpu_offload_space=0.05)


@scenario(SCENARIOS, "compiled forward")
def _compile(models: Models) -> None:
    compiled = transformers.CompileConfig(
        fullgraph=False, dynamic=True, backend="eager", mode=None, options=None
    )
    # Two prompts of one step each: tracing takes seconds.
    short = batched(models.pod, models.prompts[:2], 4, varlen_compile_config=compiled)
    equal(short, [answer[:4] for answer in models.want[:2]])


@scenario(SCENARIOS, "sampling from one candidate")
def _sampling(models: Models) -> None:
    out = models.pod.generate_batch(
        inputs=models.prompts,
        generation_config=generation(TOKENS, do_sample=True, top_k=1),
        continuous_batching_config=batching(),
    )
    models.check([list(answer.generated_tokens) for answer in out.values()])


@scenario(SCENARIOS, "persistent manager")
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


@scenario(SCENARIOS, "attention is `pod` again after a run")
def _restored(models: Models) -> None:
    batched(models.pod, models.prompts[:1], 1)
    equal(models.pod.config._attn_implementation, "pod")


@scenario(SCENARIOS, "accelerator graphs are refused")
def _graphs(models: Models) -> None:
    try:
        batched(models.pod, models.prompts[:1], 1, use_cuda_graph=True)
    except UnsupportedFeatureError:
        return
    raise AssertionError("use_cuda_graph=True was accepted")


SCENARIOS |= hf_scenarios_managed.SCENARIOS


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
