"""Two engines side by side that differ by their attention backend, and how far they are apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.job import Run, engine_arguments, few
from benchmarks.gpu.engines.places import PLACES
from benchmarks.gpu.engines.scores import Scored, apart
from benchmarks.gpu.engines.turns import Standing, standing

POD, STOCK = "pod", "stock"
# GPUs of one host are shared with others: a program that uses NVLink multicast can put them out of
# service. SGLang's second custom all-reduce would, where torch lets it.
NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    "SGLANG_OPT_USE_CUSTOM_ALL_REDUCE_V2": "0",
}
# Answers of a seconds-long load suffice to tell two arithmetics apart.
_ANSWER_TOKENS, _OTHER_BATCHES = 64, 4


def pair(
    options: argparse.Namespace,
    model: Path,
    requests: list[dict[str, Any]],
    runs: Mapping[str, Run],
    arguments: Mapping[str, Any],
    environments: Mapping[str, Mapping[str, str]],
    *,
    folders: tuple[Path, Path],
    limit: float,
) -> AbstractContextManager[dict[str, Standing]]:
    """Warm engines POD and STOCK of a model, and the load that they will answer.

    requests      as of `make_requests`; one may name the `adapter` that answers it
    runs          of both
    arguments     of sglang.Engine, beside those of a run, of both
    environments  variables of both, beside those that keep multicast off
    folders       as of `standing`
    limit         seconds until both are warm
    """
    engines = {
        side: engine_arguments(run, model, options) | dict(arguments) for side, run in runs.items()
    }
    job = {
        "engine": engines[POD],
        "requests": requests,
        "warmup": [{**one, "new": 4, "at": 0.0} for one in few(requests)],
        "questions": questions(requests, options.questions),
    }
    own = {side: NO_MULTICAST | dict(environment) for side, environment in environments.items()}
    return standing(
        runs[POD], job, own, folders, limit=limit, engines={STOCK: engines[STOCK]}
    )  # fmt: skip


def communication(device: str, all_reduce: str) -> dict[str, Any]:
    """Arguments of sglang.Engine: how ranks add up what each has computed."""
    found: dict[str, Any] = {"disable_custom_all_reduce": all_reduce == "nccl"}
    if PLACES[device].accelerates:
        found["enforce_disable_flashinfer_allreduce_fusion"] = True
    return found


def questions(requests: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Up to `count` requests of the load, spread over it, with short answers."""
    every = max(1, len(requests) // count)
    some = requests[::every][:count]
    return [{**one, "new": min(one["new"], _ANSWER_TOKENS), "at": 0.0} for one in some]


def compared(
    workers: Mapping[str, Standing], left: Callable[[], float]
) -> tuple[list[Scored], dict[str, Any]]:
    """Pod's answers, and how far they, and each backend's own in other batches, are apart.

    left  seconds that one step may still take
    """
    pod, stock = (workers[name].scores(left()) for name in (POD, STOCK))
    others = {name: workers[name].scores(left(), parts=_OTHER_BATCHES) for name in (POD, STOCK)}
    return pod, {
        "questions": len(pod),
        "pod against stock": apart(stock, pod),
        "stock in other batches": apart(stock, others[STOCK]),
        "pod in other batches": apart(pod, others[POD]),
    }
