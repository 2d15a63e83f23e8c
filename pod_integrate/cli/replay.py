"""`pod-attn replay`: hybrid batches of a log, and configs tuned for them without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pod_integrate.cli.explain import GEOMETRY
from pod_integrate.cli.paths import writable_file, writable_folder


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="A request log (Azure CSV, Mooncake JSONL, arXiv CSV), or steps that our servers "
            "recorded: a Parquet file of a tuner's archive, or a folder of them.",
        ),
    ],
    dry: Annotated[
        bool, typer.Option("--dry", help="Only say which batches and buckets there are.")
    ] = False,
    chunk: Annotated[
        int, typer.Option(help="Model: tokens of a step at most, decodes included.")
    ] = 2048,
    max_running: Annotated[int, typer.Option(help="Model: requests in the server at once.")] = 256,
    budget: Annotated[
        int, typer.Option(help="Model: tokens of KV cache, for prompts and whole answers.")
    ] = 262_144,
    mixed: Annotated[
        bool, typer.Option(help="Model: running requests join prefill steps (mixed chunks).")
    ] = True,
    reuse: Annotated[
        bool, typer.Option(help="Model: prompts start behind shared blocks (Mooncake).")
    ] = True,
    scale: Annotated[float, typer.Option(help="Model: factor on all lengths.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are taken at most.")] = 20_000,
    geometry: Annotated[
        str | None,
        typer.Option(help="Heads, head dim, dtypes, page size, window and cap of one rank. "
                     f"Default: as recorded, of a request log {GEOMETRY}."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="What is tuned: auto, cpu or cuda; with --dry also a GPU to weigh "
                     "batches for: a100, h100, h200, l40s, rtx4090."),
    ] = "auto",
    layers: Annotated[int, typer.Option(min=1, max=512, help="Layers of the model.")] = 32,
    seconds: Annotated[float, typer.Option(min=1, help="Measuring time at most.")] = 600.0,
    trials: Annotated[int, typer.Option(min=1, help="Configs tried in each bucket.")] = 24,
    table: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File that gets the table of what was promoted."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the run's database; the next run goes on from there. "
                     "Default: one that is deleted."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Buckets shown at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:  # fmt: skip
    """Tune for a log of requests, or of recorded steps, on this machine: no server, no weights.

    A request log becomes steps by a **model** of a saturated server with chunked prefill: requests
    are admitted in their order while --max-running and --budget leave room, a step takes up to
    --chunk tokens, running requests add one token each. Its own arrivals are not used. What
    servers recorded is taken as it is, and the options of the model do nothing.

    Look first: `pod-attn replay LOG --dry --device h100` lists the buckets with their shares of
    attention time, by the cost model. Then tune where the kernel is to run:
    `pod-attn replay LOG --chunk 512 --table table.json`, and serve with
    `POD_ATTN_TABLE=table.json`, or `pod-attn table import` it. Ctrl-C keeps what was promoted.
    """
    from pod_integrate.cli.replay_run import Wanted, look, tune
    from pod_integrate.replay.serving import Rules

    rules = Rules(
        chunk=chunk, max_running=max_running, budget=budget, mixed=mixed, reuse=reuse, scale=scale
    )
    if table is not None:
        writable_file(table)
    if state is not None:
        writable_folder(state)
    wanted = Wanted(
        file=file,
        rules=rules,
        steps=steps,
        geometry=geometry,
        device=device,
        layers=layers,
        seconds=seconds,
        trials=trials,
        table=table,
        state=state,
        top=top,
        as_json=as_json,
    )
    (look if dry else tune)(wanted)
