"""What does tuning on live steps gain, what does it cost, and what does a bad day do to it?

SGLang on `pod` with mixed chunks and CUDA graphs serves --model: `llama8b`, the shape of Llama-3-8B
with weights that SGLang draws, or `smollm2`, a small trained Llama from a GGUF file. All requests
of a pass are sent at once; passes differ in their lengths. Stages, each saved when it is known:

  cost   two engines in turns, one without a tuner, one that records and experiments by default:
         what both cost, as the median ratio of output tokens per second of neighbours
  learn  one engine, experiments in --share of the steps for --learn seconds; in the middle of that
         the tuner is killed and started again. Then a config that was slower is put in force as by
         an imported table: steps that its bucket serves until the tuner takes it back
  tuned  two engines in turns without a tuner, one with the table that was learned: attention times
         of every step by the device's clock, by bucket; and answers of a trained model

The gain is weighed by the time that the default spends in each bucket; a bucket that was not tuned
counts as 1.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.engines import live_models
from benchmarks.gpu.engines.job import Run, engine_arguments
from benchmarks.gpu.engines.live_document import Live
from benchmarks.gpu.engines.live_stages import compare, cost, learn, plant
from benchmarks.gpu.engines.live_tuner import LocalTuner
from benchmarks.gpu.engines.places import PLACES, REFUSED, add_stages
from pod_integrate.devices.registry import device_named

RUN = Run("pod", "pod", mixed=True)
STAGES = ("cost", "learn", "tuned")
_ROOT = Path(__file__).resolve().parents[3]


def make_job(live: Live) -> dict[str, Any]:
    """Of every engine: the model is made, variants are built."""
    options = live.options
    model, folder = live_models.MODELS[options.model], live.folder / "model"
    told = live_models.write_model(folder, model, options)
    live.say("the model is there")
    loads = live_models.loads(model, options)
    job: dict[str, Any] = {
        "engine": engine_arguments(RUN, folder, options) | told,
        "requests": loads[0], "loads": loads,
        "warmup": [{**request, "new": 8} for request in loads[0][::4]],
    }  # fmt: skip
    if model.trained:
        job["questions"] = live_models.questions(folder, _ROOT, options.questions)
    device = device_named(options.device)
    built = live_models.build_all(device, live_models.geometry_of(model))
    live.say(f"{built} variants are built")
    return job


def run(live: Live) -> None:
    """All stages that are asked for."""
    job, wanted, out = make_job(live), live.options.stages, live.options.out
    with LocalTuner(live.folder / "state", out) as tuner, _pool() as pool:
        live.say("the tuner is up")
        if "cost" in wanted:
            live.stage("cost", lambda: cost(live, RUN, job, tuner))
        if "learn" in wanted:
            live.stage("learn", lambda: learn(live, RUN, job, tuner, pool, then=plant))
    table = live.options.table or out / f"live_{live.options.model}_table.json"
    if "tuned" in wanted and table.is_file():
        live.stage("tuned", lambda: compare(live, RUN, job, table))


def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save live_<model>.json; ends with an error when a stage failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        live = Live(options, Path(name))
        run(live)
    live.end("overhead", "rollback", "gain", "decode_tuned_share", "answers")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="live", description=(__doc__ or "").split("\n")[0])
    add = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--model", choices=live_models.MODELS, default="llama8b")
    parser.add_argument("--weights", type=Path, default=Path("weights.gguf"), help="of smollm2")
    add("--layers", default=0, help="0: the model's own")
    add("--running", default=0, help="requests of a pass; 0: the model's own")
    add("--prompt", default=0, help="tokens in the mean; 0: the model's own")
    add("--answer", default=0, help="tokens in the mean; 0: the model's own")
    add("--rounds", default=4, help="passes of each engine, where two answer in turns")
    add("--questions", default=32, help="prompts whose answers are compared, of a trained model")
    parser.add_argument("--share", type=float, default=0.3, help="of steps while it learns")
    parser.add_argument("--learn", type=float, default=150.0, help="seconds of learning")
    parser.add_argument("--each", type=float, default=180.0, help="most seconds of a start or pass")
    add_stages(parser, STAGES)
    parser.add_argument("--table", type=Path, help="for `tuned` without `learn`")
    parser.add_argument("--device", choices=PLACES, default="cuda")
    parser.add_argument("--prefill-graphs", choices=("breakable", "disabled"), default="breakable")
    add_output(parser, refused=REFUSED)
    return parser.parse_args(arguments)
