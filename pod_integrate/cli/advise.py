"""`pod-attn advise`: whether mixed chunks, POD and which chunk size would pay for a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pod_integrate.cli.terminal import Figures, console

if TYPE_CHECKING:
    from pod_integrate.model.dense import DenseModel
    from pod_integrate.replay.advise import Setting

_CHUNKS = "512,1024,2048,4096,8192"
_MOST_CHUNKS = 12
_LARGEST_CHUNK = 1 << 17
# Below it a gain is within the model's error, and the simpler setting is the better one.
_WORTH = 1.03
# Of the p99 of the time between tokens: from here on it is worth a word.
_FAR_LESS = 0.7
LABEL = "model, not a measurement"


def advise(
    file: Annotated[
        Path, typer.Argument(help="A request log: Azure CSV, Mooncake JSONL or arXiv CSV.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="config.json of a dense decoder, or its folder. Default: Llama-3-8B."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="GPU of the model: a100, h100, h200, l40s or rtx4090.")
    ] = "h100",
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor-parallel ranks.")] = 1,
    chunks: Annotated[
        str, typer.Option(help="Chunk sizes to compare (--chunked-prefill-size), with commas.")
    ] = _CHUNKS,
    itl_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="p99 of the time between tokens at most, milliseconds."),
    ] = None,
    max_running: Annotated[int, typer.Option(help="Requests in the server at once.")] = 256,
    budget: Annotated[int, typer.Option(help="Tokens of KV cache.")] = 262_144,
    kv_cache_dtype: Annotated[
        str, typer.Option(help="Of the KV cache: auto, bfloat16 or fp8_e4m3.")
    ] = "auto",
    reuse: Annotated[
        bool, typer.Option(help="Prompts start behind shared blocks (Mooncake).")
    ] = True,
    scale: Annotated[float, typer.Option(help="Factor on all lengths.")] = 1.0,
    requests: Annotated[
        int, typer.Option(min=1, max=100_000, help="Of the log, from its first, at most.")
    ] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:  # fmt: skip
    """Say whether to mix chunks, with which chunk size, and what POD would gain: a model.

    The log's requests run through a model of a saturated server with chunked prefill, once with
    prefill steps of their own and once with mixed chunks (`--enable-mixed-chunk`), on stock
    attention and on POD, which attends mixed steps in one launch and has rates of its own. Prints
    for each chunk size the output tokens/s, the times between tokens, and where the time goes.
    docs/model.md has what is counted, and how far served loads on GPUs were from it. Nothing is
    measured here.
    """
    from pod_integrate.errors import SettingsError
    from pod_integrate.model.devices import find_device
    from pod_integrate.replay import advise as work
    from pod_integrate.replay import requests as logs
    from pod_integrate.replay.serving import Rules

    sizes = _sizes(chunks)
    rules = Rules(max_running=max_running, budget=budget, reuse=reuse, scale=scale)
    shape = _model(model, tp)
    geometry = shape.geometry(_kv_dtype(kv_cache_dtype))
    question = work.Question(shape, geometry, find_device(device), rules, requests)
    if logs.is_recorded(file):
        raise SettingsError(
            f"{file} holds steps that a server ran, whose chunks are what they are: advice needs a "
            "log of requests; pod-attn replay --dry says what the steps held"
        )
    screen = console(stderr=True)
    with screen.status("reading") as status:
        found = work.advise(question, work.requests_of(file), sizes, status.update)
    chosen = work.best(found, itl_ms)
    plain = work.best([s for s in found if s.name == work.UNMIXED], itl_ms)
    if not any(s.tokens_per_s for s in found):
        raise SettingsError(
            f"no request of {file} fits --budget {budget}: raise it, or lower --scale"
        )
    document = {
        "label": LABEL,
        "device": question.device.label,
        "geometry": str(question.geometry),
        "settings": [s._asdict() for s in found],
        "advice": advice(chosen, plain, itl_ms, found),
    }
    if as_json:
        console().print_json(json.dumps(document))
        return
    _print(document, found)


def advice(
    chosen: Setting | None,
    plain: Setting | None,
    itl_ms: float | None,
    found: Sequence[Setting] = (),
) -> str:
    """What to do, in a sentence.

    chosen, plain  the best of all settings, and of those without mixed chunks
    found          all of them: where mixing gains nothing it may yet keep tokens from waiting
    """
    if chosen is None:
        return (
            f"no setting keeps the p99 of the time between tokens at {itl_ms:g} ms or below: try "
            "smaller chunks, fewer --max-running, or more ranks"
        )
    if plain is not None and chosen.tokens_per_s < _WORTH * plain.tokens_per_s:
        return (
            f"--chunked-prefill-size {plain.chunk} without mixed chunks: {_figures(plain)}; mixing "
            f"gains less than the model can tell{_steadier(plain, found)}"
        )
    text = f"{_flags(chosen)}: {_figures(chosen)}"
    if plain is None:
        return f"{text}; without mixed chunks no chunk size keeps the target"
    return f"{text}, {chosen.tokens_per_s / plain.tokens_per_s:.2f}x of the best without mixing"


def _steadier(plain: Setting, found: Sequence[Setting]) -> str:
    """The mixed setting with the least p99 that is about as fast, where that is far less."""
    as_fast = [
        s for s in found
        if s.name != plain.name and s.itl_ms and s.tokens_per_s * _WORTH >= plain.tokens_per_s
    ]  # fmt: skip
    least = min(as_fast, key=_p99, default=None)
    if least is None or _p99(least) > _FAR_LESS * _p99(plain):
        return ""
    return f"; where ITL matters, {_flags(least)}: {_figures(least)}"


def _p99(setting: Setting) -> float:
    return setting.itl_ms[1] if setting.itl_ms else 0.0


def _flags(setting: Setting) -> str:
    backend = " --attention-backend pod" if "POD" in setting.name else ""
    return f"--enable-mixed-chunk --chunked-prefill-size {setting.chunk}{backend}"


def _figures(setting: Setting) -> str:
    p99 = f", ITL p99 {setting.itl_ms[1]:.1f} ms" if setting.itl_ms else ""
    return f"{rate(setting.tokens_per_s)} tokens/s{p99}"


def rate(tokens_per_s: float) -> str:
    """Of tokens: whole ones, but three digits where there are few."""
    return f"{tokens_per_s:.3g}" if tokens_per_s < 100 else f"{tokens_per_s:.0f}"


def _kv_dtype(name: str) -> str:
    from pod_integrate.errors import SettingsError
    from pod_integrate.terms.keys import SGLANG_KV_DTYPES

    # Weights, and with them such a cache, have 16 bits here.
    known = {"auto": "bf16", **SGLANG_KV_DTYPES}
    if name not in known:
        raise SettingsError(f"--kv-cache-dtype must be one of {', '.join(known)}, got {name!r:.40}")
    return known[name]


def _sizes(text: str) -> list[int]:
    from pod_integrate.errors import SettingsError

    parts = [part.strip() for part in text.split(",")]
    # No size has more digits; a number of thousands of them is none for int() either.
    wrong = [
        p for p in parts
        if not (p.isascii() and p.isdecimal() and len(p) <= 6 and 16 <= int(p) <= _LARGEST_CHUNK)
    ]  # fmt: skip
    if wrong or len(parts) > _MOST_CHUNKS:
        raise SettingsError(
            f"--chunks must be at most {_MOST_CHUNKS} integers of 16 to {_LARGEST_CHUNK}, joined "
            f"by commas, got {text!r:.80}"
        )
    return sorted({int(part) for part in parts})


def _model(path: Path | None, tp: int) -> DenseModel:
    from pod_integrate.errors import SettingsError
    from pod_integrate.model.dense import LLAMA_3_8B, DenseModel

    if path is None:
        found = LLAMA_3_8B._replace(tp=tp)
        found.check()
        return found
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"model config {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"model config {file} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"model config {file} is no JSON object")
    return DenseModel.of_config(config, tp)


def _print(document: dict[str, Any], found: list[Setting]) -> None:
    screen = console()
    screen.print(f"{document['geometry']} on {document['device']} ({LABEL})", soft_wrap=True)
    columns = ("chunk", "tokens/s", "ITL p50 ms", "p99", "hybrid", "attention")
    table = Figures(("", *columns), title="a saturated server")
    for s in found:
        gaps = [f"{ms:.1f}" for ms in s.itl_ms] if s.itl_ms else ["-", "-"]
        cells = (f"{s.chunk}", rate(s.tokens_per_s), *gaps)
        table.add_row(s.name, *cells, f"{s.hybrid_share:.0%}", f"{s.attention_share:.0%}")
    screen.print(table)
    screen.print(f"advice: {document['advice']}", soft_wrap=True)
