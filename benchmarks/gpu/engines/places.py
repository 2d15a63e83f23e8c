"""Where the engines' parts run: of real size on a GPU, as a smoke test on a CPU."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.common.counts import count
from pod_integrate.terms.keys import Dtype

# Backends of add_output that no engine's part has.
REFUSED = {"emulator": "an engine runs its whole model, which the emulated SM cannot: --device cpu"}


class Place(NamedTuple):
    """What SGLang is measured with on one kind of device.

    dtype           of weights and cache
    head_dim, vocab of the model
    stock, control  backends to compare with
    engine          arguments of sglang.Engine
    prefill_graphs  captured sizes of prefills, none on a device without graphs
    fills_memory    whether transformers may size its cache by what is free: a CPU takes half a
                    minute to fill it with zeros
    accelerates     whether it captures graphs, tells times by events and has ranks of its own; if
                    not, a part is a smoke test that takes no least time
    """

    dtype: Dtype
    head_dim: int
    vocab: int
    stock: str
    control: str
    engine: dict[str, Any]
    prefill_graphs: tuple[int, ...]
    fills_memory: bool
    accelerates: bool


PLACES = {
    "cuda": Place(
        dtype="bf16",
        head_dim=128,
        vocab=32000,
        stock="fa3",
        control="triton",
        engine={
            "dtype": "bfloat16",
            "chunked_prefill_size": 2048,
            "max_total_tokens": 1 << 18,
            "cuda_graph_bs_decode": [1, 2, 4, 8, 16, 24, 32, 48, 64],
        },
        prefill_graphs=(256, 512, 1024, 1536, 2048),
        fills_memory=True,
        accelerates=True,
    ),
    "cpu": Place(
        dtype="fp32",
        head_dim=32,
        vocab=256,
        stock="torch_native",
        control="torch_native",
        engine={"dtype": "float32", "chunked_prefill_size": 64, "max_total_tokens": 1 << 14},
        prefill_graphs=(),
        fills_memory=False,
        accelerates=False,
    ),
}


def add_only(parser: argparse.ArgumentParser) -> None:
    """The option that chooses runs by name; None for all."""
    parser.add_argument(
        "--only", type=lambda text: text.split("/"), help="names of runs, divided by /"
    )


def add_compared(
    parser: argparse.ArgumentParser, *, questions: int, each: float, seconds: float, least: float
) -> None:
    """The options of two engines whose answers are compared, and their defaults.

    `stock` is None for that of the place.
    """
    add = parser.add_argument
    add("--questions", type=count(), default=questions, help="answers that are compared")
    add("--stock", default=None, help="backend to compare with: fa3")
    add("--prefill-graphs", choices=("breakable", "disabled"), default="breakable")
    add("--each", type=float, default=each, help="most seconds of a start, a pass or answers")
    add("--seconds", type=float, default=seconds, help="of all stages together")
    add("--least", type=float, default=least, help="start no stage with less left")
    add("--device", choices=PLACES, default="cuda")


def add_stages(parser: argparse.ArgumentParser, known: Sequence[str]) -> None:
    """The option that names stages; all by default."""
    names = functools.partial(stage_names, known)
    parser.add_argument("--stages", type=names, default=list(known), help="default: all")


def stage_names(known: Sequence[str], text: str) -> list[str]:
    """Stages of a part as an option names them, `a,b`; argparse shows the error for others."""
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown} unknown, known are {', '.join(known)}")
    return names
