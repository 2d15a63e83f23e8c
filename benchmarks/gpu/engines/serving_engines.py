"""Engines of one model, started side by side and ended together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.serving_loads import (
    LOADS,
    SHAPES,
    engine_arguments,
    held,
    write_model,
)
from benchmarks.gpu.engines.serving_plan import Plan
from benchmarks.gpu.engines.turns import FIRST_PORT, PORTS, Standing
from pod_integrate.devices.registry import device_named

if TYPE_CHECKING:
    from benchmarks.gpu.engines.serving_turns import Serving


def launched(serving: Serving, model: str, plan: Plan) -> dict[str, Standing]:
    """Processes by backend that import SGLang and wait for `begin`."""
    workers = {}
    for engine in plan.engines:
        folder = serving.folder / model / engine
        folder.mkdir(parents=True, exist_ok=True)
        logs = serving.options.out / model
        logs.mkdir(parents=True, exist_ok=True)
        workers[engine] = Standing(
            Run(engine, engine, mixed=True), folder, logs, module="serving_run",
            environment=serving.environment(engine),
        )  # fmt: skip
    return workers


def begin(
    serving: Serving, model: str, plan: Plan, workers: dict[str, Standing], number: int
) -> None:
    """Let all of them start at once; `number` keeps ports of two models apart."""
    shape, options = SHAPES[model], serving.options
    folder = serving.folder / model / "model"
    write_model(folder, shape)
    loads = {
        load: {"lengths": LOADS[load], "held": held(shape, LOADS[load])}
        for name, load in plan.pairs
        if name == model
    }
    for place, (engine, worker) in enumerate(workers.items()):
        port = FIRST_PORT + (number * len(workers) + place) * PORTS
        arguments = engine_arguments(
            engine, folder, shape, device=options.device, chunks=plan.chunks(engine),
            kv=options.kv, port=port,
        )  # fmt: skip
        worker.begin({"engine": arguments, "loads": loads, "vocab": shape.vocab})


def build(serving: Serving, model: str) -> None:
    """Compile what `pod` starts with, or wait until its engine has."""
    device = device_named(serving.options.device)
    geometry = SHAPES[model].geometry(serving.kv)
    device.load()
    device.build(geometry, device.default_config(geometry))


def ready(serving: Serving, model: str, workers: dict[str, Standing]) -> dict[str, Standing]:
    """Those that came up in time; what did not is said in `failed`."""
    until = time.monotonic() + min(serving.options.start, serving.seconds_left())
    up = {}
    for engine, worker in workers.items():
        try:
            found: dict[str, Any] = worker.ready(max(1.0, until - time.monotonic()))
            serving.say(f"{model}, {engine}: up, {found['seconds']:.0f} s in the engine's start")
            up[engine] = worker
        except RuntimeError as error:
            serving.failed(f"{model}, {engine}", error)
            worker.stop()
    return up


@contextlib.contextmanager
def standing(serving: Serving, model: str, plan: Plan) -> Iterator[dict[str, Standing]]:
    """Engines of a model by backend; those of the next one import meanwhile."""
    workers = serving.next_workers.pop(model, None) or launched(serving, model, plan)
    number = plan.models.index(model)
    try:
        if not serving.enough(serving.least_start):
            serving.left_out(model)
            yield {}
            return
        began = time.monotonic()
        begin(serving, model, plan, workers, number)
        if "pod" in workers:
            # What its engine waits for, while the engines start.
            build(serving, model)
        up = ready(serving, model, workers)
        serving.stage(f"{model}: start", time.monotonic() - began)
        for later in plan.models[number + 1 : number + 2]:
            serving.next_workers[later] = launched(serving, later, plan)
        yield up
    finally:
        for worker in workers.values():
            worker.stop()
