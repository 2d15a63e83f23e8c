"""Whether mixed chunks, POD and which chunk size would pay for a log's requests: a model.

For every chunk size the log's steps are made by `serving.py`, once mixed and once not. Attention of
a stock server is estimated by model/stock.py, POD's one op after the other; what one launch gains
is simulated on the hybrid buckets that take most of the time, and their mean stands for the rest.
What is not attention is estimated by model/dense.py.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pod_integrate.devices.registry import target_of
from pod_integrate.model.batches import Lengths
from pod_integrate.model.dense import DenseModel
from pod_integrate.model.devices import Device
from pod_integrate.model.estimate import attention_us
from pod_integrate.model.simulate import simulate
from pod_integrate.model.stock import stock_us
from pod_integrate.replay.requests import Request, read
from pod_integrate.replay.serving import Rules, Serving, Step
from pod_integrate.terms.config import PodConfig, Strategy
from pod_integrate.terms.keys import Bucket, Geometry

Array = npt.NDArray[np.float64]

UNMIXED, MIXED, POD = "unmixed", "mixed", "mixed, POD"
# Hybrid buckets that are simulated for one chunk size, those with most time.
SIMULATED = 6
# Query tokens of a batch above which a simulation takes minutes and tells what a smaller one did.
_MOST_SIMULATED_TOKENS = 16_384


class Setting(NamedTuple):
    """What a server would do under one setting.

    name             UNMIXED, MIXED or POD
    chunk            tokens of a step at most
    tokens_per_s     output tokens
    itl_ms           p50 and p99 of the time between tokens of a running request; None where no
                     request got two
    hybrid_share     of the time, in steps with prefill and decode
    attention_share  of the time, in attention
    """

    name: str
    chunk: int
    tokens_per_s: float
    itl_ms: tuple[float, float] | None
    hybrid_share: float
    attention_share: float


class Question(NamedTuple):
    """What is asked: a model on a device, and the server's rules but for chunk and mixing.

    requests  of the log at most. All of them are answered under every setting, so that settings are
              compared over the same work
    """

    model: DenseModel
    geometry: Geometry
    device: Device
    rules: Rules
    requests: int


@dataclasses.dataclass
class _Timed:
    """Steps of one run: columns that grow with the steps, some bytes for each.

    rest       microseconds apart from attention
    attention  microseconds of ours, one op after the other
    stock      microseconds of a stock server's attention
    decodes    running requests that get a token
    hybrid     whether there are prefill rows beside them
    prompts    that were prefilled: each gave one token more
    """

    rest: list[float] = dataclasses.field(default_factory=list)
    attention: list[float] = dataclasses.field(default_factory=list)
    stock: list[float] = dataclasses.field(default_factory=list)
    decodes: list[int] = dataclasses.field(default_factory=list)
    hybrid: list[bool] = dataclasses.field(default_factory=list)
    prompts: int = 0


def advise(
    question: Question,
    requests: Callable[[], Iterable[Request]],
    chunks: Iterable[int],
    told: Callable[[str], None] = lambda _: None,
) -> list[Setting]:
    """All settings, chunk by chunk.

    requests  the log's from its first one; called twice for each chunk
    told      called with what is being worked on
    """
    found: list[Setting] = []
    for chunk in chunks:
        for mixed in (False, True):
            told(f"chunk {chunk}, {MIXED if mixed else UNMIXED}")
            rules = dataclasses.replace(question.rules, chunk=chunk, mixed=mixed)
            heavy: dict[Bucket, tuple[float, Step]] = {}
            timed = _timed(question, rules, requests(), heavy)
            stock = np.asarray(timed.stock, dtype=np.float64)
            found.append(_setting(MIXED if mixed else UNMIXED, chunk, timed, stock))
            if mixed:
                told(f"chunk {chunk}, simulating hybrid steps")
                ours = _ours(timed, gain(question, heavy.values()))
                found.append(_setting(POD, chunk, timed, ours))
    return found


def best(settings: Iterable[Setting], itl_ms: float | None) -> Setting | None:
    """That with most tokens/s among those whose p99 ITL is at most `itl_ms`; None of none."""
    fitting = [s for s in settings if itl_ms is None or not s.itl_ms or s.itl_ms[1] <= itl_ms]
    return max(fitting, key=lambda s: s.tokens_per_s, default=None)


def gain(question: Question, steps: Iterable[tuple[float, Step]]) -> float:
    """Simulated serial time over fused time of the heaviest of some steps, by their time.

    steps  microseconds that a step stands for, and the step. 1.0 where there is none
    """
    smaller = [s for s in steps if sum(s[1].q_lens) <= _MOST_SIMULATED_TOKENS]
    heaviest = sorted(smaller, key=lambda s: -s[0])[:SIMULATED]
    config = target_of(question.device.key).default_config(question.geometry)
    serial = fused = 0.0
    for weight, step in heaviest:
        one, other = (_simulated(question, step, config, name) for name in ("serial", "fused"))
        serial += weight
        fused += weight * other / one
    return serial / fused if fused else 1.0


def _simulated(question: Question, step: Step, config: PodConfig, strategy: Strategy) -> float:
    lengths = Lengths.of(step.q_lens, step.kv_lens)
    run = dataclasses.replace(config, strategy=strategy)
    return simulate(lengths, question.geometry, run, question.device).us


def _timed(
    question: Question,
    rules: Rules,
    requests: Iterable[Request],
    heavy: dict[Bucket, tuple[float, Step]],
) -> _Timed:
    """Times of the log's steps; `heavy` gets a step and the attention time of hybrid buckets."""
    found, serving = _Timed(), Serving(rules)
    for step in serving.steps(itertools.islice(requests, question.requests)):
        decodes = step.decodes
        prefills = len(step.q_lens) - decodes
        layer = attention_us(step.q_lens, step.kv_lens, question.geometry, question.device.key)
        attention = layer * question.model.layers
        # A chunk that does not end its prompt reaches the head too, with one row.
        rest = question.model.step_us(sum(step.q_lens), len(step.q_lens), question.device)
        found.rest.append(rest)
        found.attention.append(attention)
        stock = stock_us(step.q_lens, step.kv_lens, question.geometry, question.device)
        found.stock.append(stock * question.model.layers)
        found.decodes.append(decodes)
        found.hybrid.append(bool(decodes and prefills))
        if decodes and prefills:
            bucket = Bucket.of(step.q_lens, step.kv_lens)
            had, first = heavy.get(bucket, (0.0, step))
            heavy[bucket] = (had + attention, first)
    found.prompts = serving.requests
    return found


def _ours(timed: _Timed, speedup: float) -> Array:
    """Attention of steps whose hybrid ones are so many times as fast as one op after the other."""
    faster: Array = np.where(timed.hybrid, speedup, 1.0)
    return np.asarray(timed.attention, dtype=np.float64) / faster


def _setting(name: str, chunk: int, timed: _Timed, attention: Array) -> Setting:
    hybrid = np.asarray(timed.hybrid, dtype=bool)
    step: Array = np.asarray(timed.rest, dtype=np.float64) + attention
    decodes = np.asarray(timed.decodes, dtype=np.int64)
    total = float(step.sum())
    return Setting(
        name=name,
        chunk=chunk,
        tokens_per_s=float(decodes.sum() + timed.prompts) / total * 1e6 if total else 0.0,
        itl_ms=_gaps(step, decodes),
        hybrid_share=float(step[hybrid].sum()) / total if total else 0.0,
        attention_share=float(attention.sum()) / total if total else 0.0,
    )


def _gaps(step: Array, decodes: npt.NDArray[np.int64]) -> tuple[float, float] | None:
    """p50 and p99 of the time since a running request's last token, in ms.

    Steps without decodes make those who wait wait longer.
    """
    ends = np.cumsum(step)
    told = np.flatnonzero(decodes)
    if len(told) < 2:
        return None
    gaps = np.diff(ends[told])
    order = np.argsort(gaps)
    weight = np.cumsum(decodes[told[1:]][order])
    places = np.searchsorted(weight, [0.5 * weight[-1], 0.99 * weight[-1]])
    p50, p99 = (float(gaps[order][place]) * 1e-3 for place in places)
    return (p50, p99)


def requests_of(path: Path) -> Callable[[], Iterable[Request]]:
    """Reads a log anew each time."""
    return lambda: read(path)
