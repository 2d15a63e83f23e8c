"""`pod-attn explain`: what the cost model says of a batch and a config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pod_integrate.cli.terminal import Figures, console, styled

if TYPE_CHECKING:
    from pod_integrate.model.batches import Lengths
    from pod_integrate.terms.config import PodConfig
    from pod_integrate.terms.keys import DeviceKey, Geometry

# Llama-3-8B, what a command asks about when it is told nothing else.
GEOMETRY = "q32kv8d128-bf16-kvbf16-s16-w-1-c0"


def explain(
    batch: Annotated[
        str | None,
        typer.Argument(
            help="`p1k@8k+d64@4k`: a chunk of 1K tokens that ends at context 8K, and 64 decodes at "
            "4K; parts may repeat, `k` is 1024. Or give --q-lens and --kv-lens.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Argument(help="PodConfig as a JSON file or JSON text. Default: the device's."),
    ] = None,
    q_lens: Annotated[
        str | None, typer.Option(help="Query tokens of each request, e.g. 512,1,1.")
    ] = None,
    kv_lens: Annotated[
        str | None, typer.Option(help="Context of each request, this step's tokens included.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="GPU to simulate: a100, h100, h200, l40s or rtx4090.")
    ] = "a100",
    geometry: Annotated[
        str, typer.Option(help="Heads, head dim, dtypes, page size, window and cap of one rank.")
    ] = GEOMETRY,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also rank a few other configs on this batch.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say what a batch costs and how one launch would run it, by a model: no GPU is needed.

    Prints the batch's FLOPs and bytes, the times below which no kernel can go on three GPUs, the
    items and CTAs of the plan that the kernel would get, and the times of a simulated dispatch of
    these CTAs as one launch (fused), two (serial) and on two streams. docs/model.md says what the
    simulation counts and how far published measurements agree with it. Nothing is measured.
    """
    from pod_integrate.model import explain as model
    from pod_integrate.model.devices import find_device
    from pod_integrate.terms.keys import Geometry

    shape, target = Geometry.parse(geometry), find_device(device)
    question = model.Question(
        lengths=_lengths(batch, q_lens, kv_lens),
        geometry=shape,
        config=_config(config, target.key, shape),
        device=target,
    )
    document = model.explain(question)
    if compare:
        document["compare"] = model.compare(question)
    screen = console()
    if as_json:
        screen.print_json(json.dumps(document))
        return
    _print(screen, document, question.config.short())


def _lengths(batch: str | None, q_lens: str | None, kv_lens: str | None) -> Lengths:
    from pod_integrate.errors import ShapeError
    from pod_integrate.model.batches import Lengths

    if batch is not None and q_lens is None and kv_lens is None:
        return Lengths.parse(batch)
    if batch is None and q_lens is not None and kv_lens is not None:
        return Lengths.of(_numbers("--q-lens", q_lens), _numbers("--kv-lens", kv_lens))
    raise ShapeError("give either BATCH, e.g. p1k@8k+d64@4k, or both --q-lens and --kv-lens")


def _numbers(option: str, text: str) -> list[int]:
    from pod_integrate.errors import ShapeError

    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        # No length has more digits; a number of thousands of them is none for int() either.
        if not (part.isascii() and part.isdecimal() and len(part) <= 20):
            raise ShapeError(f"{option} must be integers joined by commas, got {part[:24]!r}")
    return [int(part) for part in parts]


def _config(text: str | None, key: DeviceKey, geometry: Geometry) -> PodConfig:
    from pod_integrate.devices.registry import target_of
    from pod_integrate.errors import ConfigError
    from pod_integrate.terms.config import PodConfig

    if text is None:
        return target_of(key).default_config(geometry)
    inline = text.lstrip().startswith("{")
    try:
        return PodConfig.from_dict(json.loads(text if inline else Path(text).read_text()))
    except OSError as error:
        raise ConfigError(
            f"no config file {text!r:.200}: {error.strerror}; inline JSON starts with {{"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {text!r} is not text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config is no JSON: {error}") from error


def _print(screen: Console, document: dict[str, Any], config: str) -> None:
    screen.print(
        f"{document['requests']} requests, {document['query_tokens']} query tokens, "
        f"{document['geometry']}\n{document['device']}, {config}",
        soft_wrap=True,
    )
    if document["infeasible"]:
        screen.print(styled(("does not fit", "red"), f": {document['infeasible']}"), soft_wrap=True)
    screen.print(_work_text(document))
    screen.print(_floor_table(document["floors"]))
    screen.print(_plan_text(document["plan"]))
    screen.print(_times_table("simulated", document["simulated"], document["label"]))
    for name, lines in document["timeline"].items():
        screen.print(f"one SM, {name} (P prefill, D decode, . idle; {document['label']})")
        for line in lines:
            # The picture of an SM is as wide as it is: wrapped, its slots would not line up.
            screen.print(f"  |{line}|", soft_wrap=True)
    if "compare" in document:
        rows = {_row_name(row): row for row in document["compare"]}
        screen.print(_times_table("other configs", rows, document["label"]))


def _row_name(row: dict[str, Any]) -> str:
    return f"{row['name']}{'' if row['fits'] else ' (does not fit)'}: {row['config']}"


def _work_text(document: dict[str, Any]) -> str:
    work = document["work"]
    return (
        f"work: prefill {work['prefill_flops'] / 1e9:.1f} GFLOP, decode "
        f"{work['decode_bytes'] / 1e9:.3f} GB of KV and, in tiles of 16 rows, "
        f"{work['decode_flops'] / 1e9:.1f} GFLOP"
    )


def _plan_text(plan: dict[str, Any]) -> str:
    prefill, decode = plan["ratio"]
    return (
        f"plan: {plan['prefill_items']} prefill items in {plan['prefill_ctas']} CTAs, "
        f"{plan['decode_items']} decode items in {plan['decode_ctas']} CTAs, tickets "
        f"{prefill}:{decode}, {plan['waves']:.2f} waves\n"
        f"      decode items of up to {plan['decode_item_keys']} keys; "
        f"{plan['split_items']} items hold part of a KV range; {plan['merge_blocks']} merge "
        f"blocks, {plan['partial_rows']} partial rows; {plan['smem_bytes'] / 1024:.0f} KiB of "
        "shared memory per CTA"
    )


def _floor_table(floors: dict[str, Any]) -> Figures:
    table = Figures(
        ("GPU", "prefill", "decode", "serial", "fused", "at most"),
        title="floors, us: data-sheet rates / rates of the best published kernels",
    )
    for entry in floors.values():
        ideal, real = entry["ideal"], entry["real"]
        cells = [
            f"{ideal[f'{name}_us']:.0f} / {real[f'{name}_us']:.0f}"
            for name in ("prefill", "decode", "serial", "fused")
        ]
        table.add_row(entry["device"], *cells, f"{real['max_speedup']:.2f}x")
    return table


def _times_table(title: str, rows: dict[str, Any], label: str) -> Figures:
    columns = ("", "us", "over real floor", "merge us", "tensor", "HBM")
    table = Figures(columns, title=f"{title} ({label})")
    for name, row in rows.items():
        shares = (f"{row['tensor_share']:.0%}", f"{row['dram_share']:.0%}")
        ratio = f"{row['over_floor']:.2f}x"
        table.add_row(name, f"{row['us']:.0f}", ratio, f"{row['merge_us']:.0f}", *shares)
    return table
