"""The command tree. Commands import what they need when they run: `--help` stays instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pod_integrate.cli import advise, answers, bench, explain, replay, table, transformers, tuner
from pod_integrate.cli.paths import naming, writable_file, writable_folder
from pod_integrate.cli.terminal import console, styled
from pod_integrate.demo.options import DemoOptions
from pod_integrate.distribution import version
from pod_integrate.errors import PodAttentionError

app = typer.Typer(
    name="pod-attn",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # A traceback with the values of variables would print tokens.
    pretty_exceptions_show_locals=False,
    help="POD-Attention for LLM servers: one launch attends a hybrid batch of prefill chunks and "
    "decode tokens, tuned live on the traffic that your server really gets.\n\n"
    "Start with `pod-attn doctor`, then `pod-attn demo`.",
)
app.add_typer(tuner.app, name="tuner")
app.add_typer(table.app, name="table")
app.add_typer(bench.app, name="bench")
app.command("advise")(advise.advise)
app.command("answers")(answers.answers)
app.command("explain")(explain.explain)
app.command("replay")(replay.replay)
app.command("transformers", context_settings=transformers.PASS_THROUGH)(transformers.transformers)

_DEFAULT = DemoOptions()
_MOST_SEED = (1 << 31) - 1  # Of numpy and torch alike.


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pod-attn {version()}")
        raise typer.Exit


@app.callback()
def group(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of `pod-attn` itself."""


@app.command()
def demo(
    model: Annotated[
        str | None,
        typer.Option(help="Model folder or hub name. Default: a small random Llama made here."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Request trace: Azure CSV, Mooncake JSONL or arXiv CSV. Default: quantiles of the "
            "Azure 2023 conversation trace, built in.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option(help="Exit after the summary instead of serving on.")
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0.01, max=100, help="Requests per second, on average.")
    ] = _DEFAULT.rate,
    seconds: Annotated[
        float, typer.Option(min=1, max=86400, help="Length of the load, seconds.")
    ] = _DEFAULT.seconds,
    settle: Annotated[
        float,
        typer.Option(min=3, max=86400, help="Seconds the tuner then goes on with the traffic."),
    ] = _DEFAULT.settle,
    scale: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Factor on prompt and answer lengths.")
    ] = _DEFAULT.scale,
    concurrency: Annotated[
        int, typer.Option(min=1, max=4096, help="Requests in flight at most.")
    ] = _DEFAULT.concurrency,
    chunk: Annotated[
        int, typer.Option(min=16, max=131_072, help="SGLang's --chunked-prefill-size, tokens.")
    ] = _DEFAULT.chunk,
    server_port: Annotated[
        int, typer.Option(min=0, max=65535, help="SGLang's port; another if taken.")
    ] = _DEFAULT.server_port,
    tuner_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The tuner's port; another if taken.")
    ] = _DEFAULT.tuner_port,
    state: Annotated[
        Path, typer.Option(help="Folder for model, logs, traces and the tuner's database.")
    ] = _DEFAULT.state,
    seed: Annotated[
        int, typer.Option(min=0, max=_MOST_SEED, help="Seed of model, lengths and arrivals.")
    ] = _DEFAULT.seed,
) -> None:
    """Run the whole loop on this machine: SGLang on POD, a load, the tuner and its dashboard.

    Starts Ray with the tuner and a stock SGLang server (`--attention-backend pod
    --enable-mixed-chunk`) side by side, sends a load of real shape, shows it live and ends with a
    table. Then it serves on until Ctrl-C. Nothing is downloaded; everything binds to 127.0.0.1.
    """
    from pod_integrate.demo.run import Demo

    options = DemoOptions(
        model=model,
        trace=trace,
        rate=rate,
        seconds=seconds,
        settle=settle,
        scale=scale,
        concurrency=concurrency,
        chunk=chunk,
        server_port=server_port,
        tuner_port=tuner_port,
        state=writable_folder(state.resolve()),
        seed=seed,
    )
    with Demo(options, console()) as running:
        running.run()
        if not once:
            running.hold()


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say what this machine is, which kernel will run and why, and what is missing.

    Exits with 1 when something needed to serve is missing; every such line names its remedy.
    """
    from pod_integrate.cli.doctor import examine
    from pod_integrate.cli.findings import print_findings

    findings = examine()
    print_findings(console(), findings, as_json=as_json)
    if any(finding.status == "missing" for finding in findings):
        raise typer.Exit(1)


@app.command()
def build(
    arch: Annotated[
        list[str] | None,
        typer.Option(help="GPU to build for, e.g. sm_90a; may be repeated; `all` for every one."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All shipped variants, not only the defaults.")
    ] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="A variant by its name, e.g. bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1."),
    ] = None,
    emulator: Annotated[
        bool, typer.Option(help="Build for the emulated SM that tests use, with the C++ compiler.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Compilers at once.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File that gets registers, spills and sizes as JSON."),
    ] = None,
) -> None:
    """Compile native kernels ahead of time.

    Without flags: what this machine runs, which is the CPU kernel, the planner and, with a GPU,
    the default variants of all head dims and dtypes. A GPU is not needed to build for one, nvcc is.
    The result is cached by a hash of sources and flags (see `pod-attn doctor` for the place); a
    server that finds none compiles it at start. Safe to run in several processes at once.
    """
    from pod_integrate.cli import build as command

    if report is not None:
        # Before the minutes of compiling, not after.
        writable_file(report)
    command.run(
        console(),
        archs=arch or [],
        every=every,
        names=variant or [],
        on_emulator=emulator,
        jobs=jobs,
        report=report,
    )


@app.command("demo-model")
def demo_model(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    layers: Annotated[int, typer.Option(min=1, max=64)] = 8,
    q_heads: Annotated[int, typer.Option(min=1, max=128, help="Query heads.")] = 8,
    kv_heads: Annotated[int, typer.Option(min=1, max=128, help="KV heads; divides q_heads.")] = 4,
    head_dim: Annotated[
        int, typer.Option(help="Head dim: a multiple of 16 in 32..256, as the kernel takes.")
    ] = 64,
    max_context: Annotated[
        int, typer.Option(min=64, max=1 << 24, help="Longest context, tokens.")
    ] = 16384,
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Seed of the weights.")] = 0,
) -> None:
    """Write a small random Llama with a byte-level tokenizer in HuggingFace's format.

    For machines that cannot download weights: the text is noise, all code paths are real.
    """
    from pod_integrate.demo.llama import make_demo_model

    with naming(directory):
        path = make_demo_model(
            directory,
            layers=layers,
            q_heads=q_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            max_context=max_context,
            seed=seed,
        )
    console().print(f"demo model in {path}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: user mistakes end with their message and code 2, Ctrl-C with 130.

    arguments  those of the command line; None: of this process
    """
    try:
        app(arguments, standalone_mode=True)
    except PodAttentionError as error:
        _refuse(type(error).__name__, str(error))
    except OSError as error:
        _refuse("error", str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse(name: str, message: str) -> NoReturn:
    console(stderr=True).print(styled((name, "red"), f": {message}"), soft_wrap=True)
    sys.exit(2)
