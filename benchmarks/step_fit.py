"""Constants of advice's model of stock steps, fitted to served ones; what they say of the others.

    python -m benchmarks.step_fit

Steps of the stock engine in benchmarks/results/gpu_serving.json. For each run (a model, a load, a
cache) the constants are fitted to all other runs over a cache of the same dtype, where there are
any, and asked about that one, beside the model without them: attention one op after the other at
the best rates known. Errors are the sum of what steps are off by over the sum of their times. How
much one SM draws is not fitted again: one load alone shows it. Results go to
benchmarks/results/step_fit.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import _results
from benchmarks.gpu.engines.serving_figures import Timed
from benchmarks.gpu.engines.serving_loads import SHAPES
from benchmarks.gpu.engines.serving_summary import attention_ms, device_called, lengths_of
from pod_integrate.model.dense import STEP_US
from pod_integrate.model.devices import Device
from pod_integrate.model.estimate import Work, work_of
from pod_integrate.model.stock import FITTED, FITTED_NARROW, Shares, work_us
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

COMMAND = "python -m benchmarks.step_fit"
_COARSE, _FINE = 0.1, 0.005


class Constants(NamedTuple):
    """What is fitted; `step_us` is model/dense.py's."""

    alone: float
    beside: float
    last: float
    prefill: float
    step_us: float


# By the bytes of a key's element.
SHIPPED = {
    size: Constants(one.alone, one.beside, one.last, one.prefill, STEP_US)
    for size, one in ((2, FITTED), (1, FITTED_NARROW))
}
# Where a fit begins: what was assumed before there were steps to fit to.
_BEGIN = Constants(0.9, 0.9, 1.0, 1.0, 500.0)


class Sample(NamedTuple):
    """One served step.

    ms     measured, until the next one begins
    rest   us by the model of what is not attention, without the host's
    plain  ms by the model without a stock kernel's constants
    """

    ms: float
    rest: float
    plain: float
    work: Work
    layers: int
    geometry: Geometry

    @property
    def key_bytes(self) -> int:
        """Of an element of the cache."""
        return ELEMENT_BYTES[self.geometry.kv_dtype]

    def predicted(self, constants: Constants, device: Device) -> float:
        """Milliseconds."""
        shares = Shares(
            constants.alone, constants.beside, last=constants.last, prefill=constants.prefill
        )
        layer = work_us(self.work, self.geometry.num_kv_heads, device, shares)
        return (constants.step_us + self.rest + self.layers * layer) / 1e3


def samples(run: dict[str, Any], stock: str, device: Device, stride: int = 1) -> list[Sample]:
    """Every `stride`-th recorded step of a run's stock engine."""
    shape, found = SHAPES[run["model"]], []
    steps = [step for w in run["windows"] if w["engine"] == stock for step in w["steps"]]
    for raw in steps[::stride]:
        step = Timed(*raw)
        q_lens, kv_lens = lengths_of(step)
        rest = shape.dense().step_us(sum(q_lens), len(q_lens), device) - STEP_US
        attention = sum(attention_ms(step, shape, run["kv"], device))
        plain = attention + (_BEGIN.step_us + rest) / 1e3
        geometry = shape.geometry(run["kv"])
        work = work_of(q_lens, kv_lens, geometry)
        found.append(Sample(step.ms, rest, plain, work, shape.layers, geometry))
    return found


def error(found: Sequence[Sample], device: Device, constants: Constants) -> float:
    """Of the time of these steps."""
    off = sum(abs(one.predicted(constants, device) - one.ms) for one in found)
    return off / sum(one.ms for one in found)


def plain_error(found: Sequence[Sample]) -> float:
    """Likewise, without a stock kernel's constants."""
    return sum(abs(one.plain - one.ms) for one in found) / sum(one.ms for one in found)


def fitted(found: Sequence[Sample], device: Device) -> Constants:
    """Least error, one constant after the other, in ever smaller steps."""
    best, scale = _BEGIN, _COARSE
    least = error(found, device, best)
    while scale >= _FINE:
        tried = [
            best._replace(**{name: value * factor})
            for name, value in best._asdict().items()
            for factor in (1.0 - scale, 1.0 + scale)
        ]
        errors = [error(found, device, one) for one in tried]
        if min(errors) < least:
            least = min(errors)
            best = tried[errors.index(least)]
        else:
            scale /= 2.0
    return best


def left_out(runs: dict[str, list[Sample]], device: Device) -> dict[str, dict[str, Any]]:
    """By run that has others over a cache of its dtype: constants of these, and errors on it."""
    found = {}
    for name, own in runs.items():
        others = [one for other, steps in runs.items() for one in steps
                  if other != name and one.key_bytes == own[0].key_bytes]  # fmt: skip
        if not others:
            continue
        constants = fitted(others, device)
        found[name] = {
            "constants_of_others": constants._asdict(),
            "error": error(own, device, constants), "plain_error": plain_error(own),
        }  # fmt: skip
    return found


def by_cache(every: Sequence[Sample], device: Device) -> dict[str, dict[str, Any]]:
    """By bits of a key: shipped constants, their error, that without any, and a fit to all."""
    found = {}
    for size, shipped in SHIPPED.items():
        if own := [one for one in every if one.key_bytes == size]:
            found[f"{8 * size} bits"] = {
                "steps": len(own), "shipped": shipped._asdict(),
                "error": error(own, device, shipped), "plain_error": plain_error(own),
                "fitted": fitted(own, device)._asdict(),
            }  # fmt: skip
    return found


def main() -> None:
    """Fit, print and save."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    document = json.loads((_results.RESULTS / "gpu_serving.json").read_text())
    device = device_called(document["gpu"])
    if device is None:
        raise SystemExit(f"step_fit: the model does not know {document['gpu']}")
    stock = document["load"]["stock"]
    runs = {name: samples(run, stock, device) for name, run in document["runs"].items()}
    every = [one for steps in runs.values() for one in steps]
    found = {
        "command": COMMAND, "gpu": document["gpu"], "caches": by_cache(every, device),
        "left_out": left_out(runs, device),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    print(_results.write("step_fit", found))


if __name__ == "__main__":
    main()
