"""What `pod-attn advise` says of loads that were served on GPUs, against what was measured.

    python -m benchmarks.advise_agreement

The loads of the recorded GPU parts `sglang` and `traces`, everything sent at once, go through the
model of advice with the same model, chunk size and device. Results go to benchmarks/results; in a
checkout the table of docs/model.md is redrawn from them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import _results
from benchmarks.gpu.engines.job import make_requests
from benchmarks.gpu.engines.places import PLACES
from pod_integrate.model.dense import DenseModel
from pod_integrate.model.devices import DEVICES
from pod_integrate.replay import advise
from pod_integrate.replay.requests import Request
from pod_integrate.replay.serving import Rules

COMMAND = "python -m benchmarks.advise_agreement"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "model.md"
_MARKS = ("<!-- advice:begin -->", "<!-- advice:end -->")
# What the recorded runs are called, and what advice calls them.
_NAMES = {"pod, mixed": advise.POD, "fa3, mixed": advise.MIXED, "fa3": advise.UNMIXED}


class Served(NamedTuple):
    """One recorded run: the part, its name for advice, and output tokens/s."""

    part: str
    setting: str
    tokens_per_s: float


def served(part: str, document: dict[str, Any]) -> Iterator[Served]:
    """Runs of a recorded document that advice can be asked about."""
    if part == "gpu_sglang":
        for run, name in _NAMES.items():
            found = document["runs"].get(run, {}).get("saturated")
            if found is not None:
                yield Served(part, name, found["output_tokens_per_second"])
    else:
        yield Served(part, advise.POD, statistics.median(document["rates"]["off"]))


def predicted(document: dict[str, Any]) -> dict[str, float]:
    """Output tokens/s of a recorded document's load, by the name that advice has for a setting."""
    load, place = document["load"], PLACES["cuda"]
    asked = argparse.Namespace(**({"interval": 0.0} | load))
    requests = [Request(0.0, len(r["ids"]), r["new"]) for r in make_requests(asked)]
    heads, dim = load["heads"], place.head_dim
    model = DenseModel(
        layers=load["layers"],
        hidden=heads * dim,
        intermediate=2 * heads * dim,
        vocab=place.vocab,
        q_heads=heads,
        kv_heads=heads // 4,
        head_dim=dim,
    )
    rules = Rules(budget=place.engine["max_total_tokens"])
    device = next(d for d in DEVICES.values() if d.key.name == _key(document))
    question = advise.Question(model, model.geometry(), device, rules, len(requests))
    chunk = place.engine["chunked_prefill_size"]
    return {s.name: s.tokens_per_s for s in advise.advise(question, lambda: requests, [chunk])}


def _key(document: dict[str, Any]) -> str:
    name: str = document["gpu"]
    return name.lower().replace(" ", "-")


def render(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with the table of these runs between its marks."""
    head, rest = page.split(_MARKS[0])
    _, tail = rest.split(_MARKS[1])
    lines = ["| served | GPU | tokens/s | model | off by |", "|---|---|--:|--:|--:|"]
    lines += [
        f"| {row['setting']} | {row['gpu']} | {row['tokens_per_s']:.0f} | {row['predicted']:.0f} "
        f"| {100 * row['error']:+.0f} % |"
        for row in rows
    ]
    return "\n".join([head + _MARKS[0], *lines, _MARKS[1] + tail])


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    rows = []
    for part in ("gpu_sglang", "gpu_traces"):
        document = json.loads((_results.RESULTS / f"{part}.json").read_text())
        said = predicted(document)
        rows += [
            one._asdict() | {"gpu": document["gpu"], "predicted": said[one.setting],
                             "error": said[one.setting] / one.tokens_per_s - 1}
            for one in served(part, document)
        ]  # fmt: skip
    errors = [abs(row["error"]) for row in rows]
    path = _results.write("advise_agreement", {"command": COMMAND, "runs": rows})
    for name, value in (("median", statistics.median(errors)), ("worst", max(errors))):
        unit = f"% of output tokens/s, {len(rows)} served runs"
        _results.record_headline(f"advise.error_{name}_pct", 100 * value, unit, COMMAND)
    for row in rows:
        print(f"{row['part']:<11} {row['setting']:<11} {row['tokens_per_s']:>7.0f} measured, "
              f"{row['predicted']:>7.0f} by the model, {100 * row['error']:+.1f} %")  # fmt: skip
    if PAGE.exists():
        PAGE.write_text(render(PAGE.read_text(), rows))
    print(path)


if __name__ == "__main__":
    main()
