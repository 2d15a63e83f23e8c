"""Stock SGLang servers as child processes, and their greedy answers compared token by token."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from pod_integrate.demo.ports import free_port
from pod_integrate.demo.processes import Child
from pod_integrate.demo.workload import Fit, built_in, prompt_ids
from pod_integrate.replay.requests import Request

START_SECONDS = 900.0
_REQUEST_SECONDS = 400.0
# One core a rank: SGLang's CUDA wheel binds no threads, and two ranks of two would fight.
_ONE_CORE_EACH = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1"}
# What every server of a comparison runs with; only the backend and the variant's flags differ.
# An idle scheduler polls on a whole core unless it is told to sleep.
COMMON_FLAGS = (
    "--device cpu --dtype float32 --skip-server-warmup --mem-fraction-static 0.5 "
    "--max-total-tokens 20000 --random-seed 0 --sleep-on-idle --log-level info"
).split()
# Threads that spin while they wait take the cores from the other server of the comparison.
COMMON_ENV = {"OMP_WAIT_POLICY": "PASSIVE"}
POD = ("--attention-backend", "pod")
STOCK = ("--attention-backend", "torch_native")
MIXED = ("--enable-mixed-chunk", "--chunked-prefill-size", "64")


class ServerKind(NamedTuple):
    """Flags and environment of one server."""

    flags: tuple[str, ...]
    env: Mapping[str, str] = {}


REFERENCE = ServerKind((*STOCK, *MIXED))
VARIANTS: dict[str, ServerKind] = {
    "mixed": ServerKind((*POD, *MIXED)),
    "page16_no_radix": ServerKind((*POD, *MIXED, "--page-size", "16", "--disable-radix-cache")),
    "tp2": ServerKind((*POD, *MIXED, "--tp-size", "2"), _ONE_CORE_EACH),
    "pp2": ServerKind((*POD, *MIXED, "--pp-size", "2"), _ONE_CORE_EACH),
    "dp2": ServerKind((*POD, *MIXED, "--dp-size", "2"), _ONE_CORE_EACH),
    "pod_prefill_stock_decode": ServerKind(
        ("--prefill-attention-backend", "pod", "--decode-attention-backend", "torch_native", *MIXED)
    ),
    "no_chunks": ServerKind((*POD, "--chunked-prefill-size", "-1")),
    "no_overlap": ServerKind((*POD, *MIXED, "--disable-overlap-schedule")),
}


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    child: Child

    def answer(self, ids: list[int], new_tokens: int, **options: Any) -> dict[str, Any]:
        """One greedy answer of exactly `new_tokens` tokens; raises httpx.HTTPError."""
        body = {
            "input_ids": ids,
            "sampling_params": {
                "max_new_tokens": new_tokens,
                "temperature": 0,
                "ignore_eos": True,
            },
            **options,
        }
        response = httpx.post(f"{self.url}/generate", json=body, timeout=_REQUEST_SECONDS)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def answers(self, requests: Sequence[Request], *, seed: int) -> list[Answer]:
        """Greedy answers to all requests, sent at once, in the order of `requests`."""
        prompts = prompts_of(requests, seed=seed)
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            raw = pool.map(
                lambda pair: self.answer(pair[0], pair[1].answer_tokens),
                zip(prompts, requests, strict=True),
            )
            return [
                Answer([int(i) for i in one["output_ids"]], int(one["meta_info"]["cached_tokens"]))
                for one in raw
            ]

    def margin(self, ids: list[int]) -> float:
        """Log-probability of the best next token minus that of the second best."""
        answer = self.answer(ids, 1, return_logprob=True, top_logprobs_num=2)
        best, second = answer["meta_info"]["output_top_logprobs"][0][:2]
        return float(best[0]) - float(second[0])


class Answer(NamedTuple):
    """Tokens of one answer, and how many prompt tokens came from the server's prefix cache."""

    tokens: list[int]
    cached: int


class Mismatch(NamedTuple):
    """Where two answers part: request, position, both tokens, margin of the reference there."""

    request: int
    position: int
    reference: int
    candidate: int
    margin: float


def trace_shaped(count: int, *, seed: int) -> list[Request]:
    """Requests with a tenth of the built-in trace's lengths: what two cores answer in seconds."""
    return built_in(count, Fit(rate=1.0, scale=0.1, max_prompt=300, max_answer=24), seed=seed)


def prompts_of(requests: Sequence[Request], *, seed: int) -> list[list[int]]:
    """Token ids of the prompts (bytes, for the demo model); a function of the arguments alone."""
    return [prompt_ids(r, i, vocab=256, scale=1.0, seed=seed) for i, r in enumerate(requests)]


@contextlib.contextmanager
def sglang_server(
    model: Path, kind: ServerKind, *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start one server on a free loopback port and stop it at the end.

    Not ready yet when entered: call `wait_ready`, so that servers can start side by side.
    """
    port = free_port()
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *COMMON_FLAGS, *kind.flags]
    together = {**COMMON_ENV, **kind.env, **(env or {})}
    child = Child(f"sglang {' '.join(kind.flags)}", command, log=log, env=together)
    try:
        yield Server(f"http://127.0.0.1:{port}", child)
    finally:
        child.stop(grace=1.0)


def wait_ready(*servers: Server) -> None:
    """Wait until all answer /health; raises StartError with the end of the log."""
    for server in servers:
        server.child.wait_ready(f"{server.url}/health", timeout=START_SECONDS)


def mismatches(
    reference: Server,
    requests: Sequence[Request],
    expected: Sequence[Answer],
    actual: Sequence[Answer],
    *,
    seed: int,
) -> list[Mismatch]:
    """First difference of every answer that differs, with the reference's margin there."""
    found = []
    prompts = prompts_of(requests, seed=seed)
    for index, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if want.tokens == got.tokens:
            continue
        pairs = enumerate(itertools.zip_longest(want.tokens, got.tokens, fillvalue=-1))
        position, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        margin = reference.margin([*prompts[index], *want.tokens[:position]])
        found.append(Mismatch(index, position, a, b, margin))
    return found


def explain(found: Sequence[Mismatch], count: int) -> str:
    """What a failed comparison of `count` answers shows."""
    lines = [
        f"request {m.request} token {m.position}: {m.candidate} for {m.reference}, reference "
        f"margin {m.margin:.2e}"
        for m in found
    ]
    return f"{len(found)} of {count} answers differ\n" + "\n".join(lines)
