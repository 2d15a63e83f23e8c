"""`pod-attn bench ...`: runs the scripts of benchmarks/, which ship with the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pod_integrate.errors import PodAttentionError

app = typer.Typer(
    no_args_is_help=True,
    help="Benchmarks. Each writes JSON to benchmarks/results and never judges the numbers.",
)


def benchmarks_home() -> Path:
    """Folder that `benchmarks` is imported from: a checkout's root, in a wheel inside the package.

    Raises PodAttentionError when neither has one.
    """
    package = Path(__file__).resolve().parent.parent
    for home in (package.parent, package / "_benchmarks"):
        if (home / "benchmarks" / "_results.py").is_file():
            return home
    raise PodAttentionError("the benchmarks folder is missing; reinstall pod-attention")


def _run(module: str, arguments: list[str] | None) -> None:
    path = os.pathsep.join([str(benchmarks_home()), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"benchmarks.{module}", *(arguments or [])]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    raise typer.Exit(done.returncode)


_Extra = Annotated[
    list[str] | None, typer.Argument(help="Passed to the benchmark; try `-- --help`.")
]


@app.command("op")
def op(arguments: _Extra = None) -> None:
    """Our op against a loop of torch SDPA calls, or with `-- --vllm PYTHON` vLLM on a CPU."""
    _run("op_sdpa", arguments)


@app.command("op-accuracy")
def op_accuracy(arguments: _Extra = None) -> None:
    """How exact the op is on the CPU: to 128K keys, logits of 1e6, every dtype."""
    _run("op_accuracy", arguments)


@app.command("sglang-equal")
def sglang_equal(arguments: _Extra = None) -> None:
    """Greedy tokens of a stock SGLang server on `pod` against `torch_native`, same flags."""
    _run("sglang_equal", arguments)


@app.command("sglang-families")
def sglang_families(arguments: _Extra = None) -> None:
    """Small random models of many families on `pod` against stock attention; ten minutes."""
    _run("sglang_families", arguments)


@app.command("model")
def model(arguments: _Extra = None) -> None:
    """The GPU kernel's cost model against published comparisons; simulates, measures nothing."""
    _run("kernel_model", arguments)


@app.command("tuner-fuzz")
def tuner_fuzz(arguments: _Extra = None) -> None:
    """10,000 requests that no client should send, to every endpoint of the tuner; counts 5xx."""
    _run("tuner_fuzz", arguments)


@app.command("tuner-scale")
def tuner_scale(arguments: _Extra = None) -> None:
    """The tuner's own time at 10,000 buckets and as many records as asked for; some minutes."""
    _run("tuner_scale", arguments)


@app.command("tuner-live")
def tuner_live(arguments: _Extra = None) -> None:
    """The tuner on simulated live steps: false promotions, power, roll backs; 5 minutes."""
    _run("tuner_live", arguments)


@app.command("kills")
def kills(arguments: _Extra = None) -> None:
    """SIGKILL of tuner, worker or server at random moments: nothing acknowledged may be lost."""
    _run("kills", arguments)


@app.command("gpu")
def gpu(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Part and its options; try `-- --help` and `-- numbers --help`."),
    ] = None,
    first_contact: Annotated[
        bool,
        typer.Option(
            "--first-contact", help="Conformance, checks, sanitizer, co-residency: the default."
        ),
    ] = False,
) -> None:
    """On a GPU: first contact, correctness sweep, published cases against peers, profiles."""
    _run("gpu", [*(["first-contact"] if first_contact else []), *(arguments or [])])


@app.command("demo")
def demo(arguments: _Extra = None) -> None:
    """One run of the whole demo loop, recorded."""
    _run("demo", arguments)
