"""Families of small random models on SGLang's own model runner: `pod` against its reference.

    python benchmarks/sglang_families.py [--families NAME[,NAME...] | --draw]

Each model is decoded greedily in fresh processes, in steps of chunks, of chunks beside running
requests, and of running requests alone: on `pod` and by the family's reference, which is
`torch_native`, or transformers' eager attention where `torch_native` leaves something out. Writes
results/sglang_families.json, where families that did not run keep their last result, the headlines
sglang.model_families_tried, _equal and _refused, and the table in docs/sglang.md, which --draw
alone draws again. What is neither equal nor refused by us is not served by stock SGLang either.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _results
from benchmarks.engines.sglang_families import Family
from benchmarks.engines.sglang_families_odd import FAMILIES
from benchmarks.engines.sglang_in_process import Outcome, classify, run

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "sglang.md"
BEGIN, END = "<!-- families:begin -->", "<!-- families:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="all", help=f"all, or of {', '.join(FAMILIES)}")
    parser.add_argument("--draw", action="store_true", help="only the table, from what is saved")
    options = parser.parse_args()
    if options.draw:
        _draw(_saved())
        return
    names = list(FAMILIES) if options.families == "all" else options.families.split(",")
    unknown = sorted(set(names) - set(FAMILIES))
    if unknown:
        parser.error(f"unknown families {unknown}; known are {sorted(FAMILIES)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows.append(_row(name, FAMILIES[name], Path(folder) / name))
            print(rows[-1], flush=True)
    done = {row["family"]: row for row in [*_saved(), *rows]}
    rows = [done[name] for name in FAMILIES if name in done]
    command = "python benchmarks/sglang_families.py"
    _results.write("sglang_families", {"command": command, "families": rows})
    _headlines(rows, command)
    _draw(rows)


def _saved() -> list[dict[str, Any]]:
    path = _results.RESULTS / "sglang_families.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["families"] if path.exists() else []
    return rows


def _row(name: str, family: Family, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    reference = run(family, folder, family.reference, family.reference_flags)
    pod = run(family, folder, "pod")
    return {
        "family": name,
        "date": _results.today(),
        "model_type": family.kind,
        "oddity": family.oddity,
        "flags": " ".join(family.flags),
        "reference": " ".join((family.reference, *family.reference_flags)),
        "result": classify(reference, pod),
        "tokens": sum(map(len, pod.decoded.tokens)) if pod.decoded else 0,
        "max_logit_difference": _difference(reference, pod),
        "pod_error": _first_line(pod.error),
        "reference_error": _first_line(reference.error),
    }


def _difference(reference: Outcome, pod: Outcome) -> float | None:
    if not (reference.decoded and pod.decoded and reference.decoded.logits):
        return None
    pairs = zip(reference.decoded.logits, pod.decoded.logits, strict=True)
    return max(float(abs(a - b).max()) for a, b in pairs)


def _first_line(error: str) -> str:
    return error.strip().splitlines()[0] if error.strip() else ""


def _headlines(rows: list[dict[str, Any]], command: str) -> None:
    counts = {
        "tried": len(rows),
        "equal": sum(row["result"] == "equal" for row in rows),
        "refused": sum(row["result"] == "refused" for row in rows),
    }
    for name, count in counts.items():
        _results.record_headline(f"sglang.model_families_{name}", count, "families", command)


def table(rows: list[dict[str, Any]]) -> str:
    """The guide's Markdown table."""
    lines = ["| family | what is odd | result | how |", "|---|---|---|---|"]
    for row in rows:
        cells = (f"`{row['family']}`", row["oddity"], row["result"], _how(row))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _how(row: dict[str, Any]) -> str:
    if row["result"] == "equal":
        parts = [f"`{row['flags']}`"] if row["flags"] else []
        others = row["reference"] != "torch_native"
        parts += [f"against `{row['reference']}`"] if others else []
        return ", ".join(parts) or "-"
    error: str = row["pod_error"] if row["result"] == "refused" else row["reference_error"]
    _, _, text = error.partition(": ")
    return text.replace("|", "/")[:160]


def _draw(rows: list[dict[str, Any]]) -> None:
    # An installed package has no guide to draw into.
    if GUIDE.exists():
        head, rest = GUIDE.read_text().split(BEGIN)
        _, tail = rest.split(END)
        GUIDE.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}")


if __name__ == "__main__":
    main()
