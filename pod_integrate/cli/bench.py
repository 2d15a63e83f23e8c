"""`pod-attn bench ...`: runs the scripts of benchmarks/, which ship with the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pod_integrate.errors import PodAttentionError

_SCRIPTS = {
    "demo": "demo.py",
    "model": "kernel_model.py",
    "op": "op_sdpa.py",
    "op-accuracy": "op_accuracy.py",
    "sglang-equal": "sglang_equal.py",
    "sglang-families": "sglang_families.py",
    "tuner-fuzz": "tuner_fuzz.py",
}

app = typer.Typer(
    no_args_is_help=True,
    help="Benchmarks. Each writes JSON to benchmarks/results and never judges the numbers.",
)


def benchmarks_folder() -> Path:
    """The benchmarks folder: in a checkout beside the package, in a wheel inside it.

    Raises PodAttentionError when neither exists.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "benchmarks", package / "_benchmarks"):
        if folder.is_dir():
            return folder
    raise PodAttentionError("the benchmarks folder is missing; reinstall pod-attention")


def _run(name: str, arguments: list[str]) -> None:
    script = benchmarks_folder() / _SCRIPTS[name]
    raise typer.Exit(
        subprocess.run([sys.executable, str(script), *arguments], check=False).returncode
    )


_Extra = Annotated[
    list[str] | None, typer.Argument(help="Passed to the benchmark; try `-- --help`.")
]


@app.command("op")
def op(arguments: _Extra = None) -> None:
    """Our op against a loop of torch SDPA calls, over hybrid batches, in interleaved pairs."""
    _run("op", arguments or [])


@app.command("op-accuracy")
def op_accuracy(arguments: _Extra = None) -> None:
    """How exact the op is on the CPU: to 128K keys, logits of 1e6, every dtype."""
    _run("op-accuracy", arguments or [])


@app.command("sglang-equal")
def sglang_equal(arguments: _Extra = None) -> None:
    """Greedy tokens of a stock SGLang server on `pod` against `torch_native`, same flags."""
    _run("sglang-equal", arguments or [])


@app.command("sglang-families")
def sglang_families(arguments: _Extra = None) -> None:
    """Small random models of many families on `pod` against stock attention; ten minutes."""
    _run("sglang-families", arguments or [])


@app.command("model")
def model(arguments: _Extra = None) -> None:
    """The GPU kernel's cost model against published comparisons; simulates, measures nothing."""
    _run("model", arguments or [])


@app.command("tuner-fuzz")
def tuner_fuzz(arguments: _Extra = None) -> None:
    """10,000 requests that no client should send, to every endpoint of the tuner; counts 5xx."""
    _run("tuner-fuzz", arguments or [])


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
    command = [sys.executable, "-m", "gpu", *(["first-contact"] if first_contact else [])]
    path = os.pathsep.join(
        [str(benchmarks_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    done = subprocess.run(
        [*command, *(arguments or [])], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    raise typer.Exit(done.returncode)


@app.command("demo")
def demo(arguments: _Extra = None) -> None:
    """One run of the whole demo loop, recorded."""
    _run("demo", arguments or [])
