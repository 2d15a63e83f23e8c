"""Greedy answers of stock SGLang servers on POD against stock SGLang on torch_native.

    python benchmarks/sglang_equal.py [--requests 120] [--variants mixed|all|NAME[,NAME...]]

Writes results/sglang_equal.json, where variants that did not run keep their last result, and the
headlines sglang.requests_compared and sglang.requests_token_equal, which sum over all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _results
from benchmarks.engines.sglang_server import (
    REFERENCE,
    VARIANTS,
    Answer,
    Server,
    mismatches,
    sglang_server,
    trace_shaped,
    wait_ready,
)
from benchmarks.engines.sink import TraceSink
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.terms.keys import Bucket

LAYERS = 4
WHOLE = "python benchmarks/sglang_equal.py --requests 120 --variants all --seed 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=120, help="per variant, sent at once")
    parser.add_argument("--variants", default="mixed", help=f"all, or of {', '.join(VARIANTS)}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = list(VARIANTS) if options.variants == "all" else options.variants.split(",")
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        parser.error(f"unknown variants {unknown}; known are {sorted(VARIANTS)}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        _run(names, options, Path(folder), stack)


def _run(
    names: list[str], options: argparse.Namespace, folder: Path, stack: contextlib.ExitStack
) -> None:
    seed = options.seed
    model = make_demo_model(folder / "model", layers=LAYERS)
    reference = stack.enter_context(sglang_server(model, REFERENCE, log=folder / "reference.log"))
    requests = trace_shaped(options.requests, seed=seed)
    expected: list[Answer] = []
    rows: list[dict[str, Any]] = []
    for name in names:
        with TraceSink() as sink:
            env = {
                "POD_ATTN_TUNER_URL": sink.url,
                "POD_ATTN_TRACE_SAMPLE": "1",
                "POD_ATTN_POLL_SECONDS": "0.5",
            }
            with sglang_server(model, VARIANTS[name], log=folder / f"{name}.log", env=env) as pod:
                wait_ready(reference, pod)
                expected = expected or reference.answers(requests, seed=seed)
                answers = pod.answers(requests, seed=seed)
                # The last traces are posted a moment after the last token.
                sink.wait(2.0)
            rows.append(_row(name, reference, requests, expected, answers, sink, seed))
            print(rows[-1], flush=True)
            # After each variant: half an hour of servers should survive an interruption.
            _write(rows, options)


def _row(
    name: str,
    reference: Server,
    requests: list[Any],
    expected: list[Answer],
    answers: list[Answer],
    sink: TraceSink,
    seed: int,
) -> dict[str, Any]:
    found = mismatches(reference, requests, expected, answers, seed=seed)
    steps = [Bucket.of(r.q_lens, r.kv_lens) for r in sink.records()]
    return {
        "variant": name,
        "flags": " ".join(VARIANTS[name].flags),
        "requests": len(requests),
        "token_equal": len(requests) - len(found),
        "tokens": sum(len(answer.tokens) for answer in answers),
        "steps_traced": len(steps),
        "hybrid_steps": sum(bucket.is_hybrid for bucket in steps),
        "mismatches": [mismatch._asdict() for mismatch in found],
    }


def _write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    command = (
        f"python benchmarks/sglang_equal.py --requests {options.requests} "
        f"--variants {options.variants} --seed {options.seed}"
    )
    rows = [
        *_others(rows),
        *({**row, "command": command, "date": _results.today()} for row in rows),
    ]
    _results.write(
        "sglang_equal",
        {
            "command": WHOLE,
            "model": f"random Llama, {LAYERS} layers, 8 query and 4 KV heads, head dim 64, fp32",
            "reference": " ".join(REFERENCE.flags),
            "variants": rows,
        },
    )
    for name, key in (("compared", "requests"), ("token_equal", "token_equal")):
        total = sum(row[key] for row in rows)
        _results.record_headline(
            f"sglang.requests_{name}",
            total,
            "requests",
            WHOLE,
        )


def _others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Saved results of the variants that `rows` lacks, each with the command that it came from."""
    path = _results.RESULTS / "sglang_equal.json"
    if not path.exists():
        return []
    saved = json.loads(path.read_text())
    own = {"command": saved["command"], "date": saved["date"]}
    names = {row["variant"] for row in rows}
    return [{**own, **row} for row in saved["variants"] if row["variant"] not in names]


if __name__ == "__main__":
    main()
