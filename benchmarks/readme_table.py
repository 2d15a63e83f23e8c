"""Draws the numbers of the documents from benchmarks/results: README's six, docs/numbers.md's all.

python benchmarks/readme_table.py          rewrite README.md's table and docs/numbers.md
python benchmarks/readme_table.py --check  exit 1 when one of them is out of date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks._headlines import SECTIONS
from benchmarks._readme_rows import SIX

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- headline:begin -->", "<!-- headline:end -->"
HEAD = """# Every number

Drawn by `python benchmarks/readme_table.py` from
[headline.json](../benchmarks/results/headline.json), which the command beside each number writes;
do not edit. "-" has not been measured. Machines are noisy: read ratios, not digits. What the
numbers of a GPU mean, case by case, is in [gpu.md](gpu.md). The loop of torch SDPA gathers each
request's K/V from the paged cache, as a server must; against SDPA on K/V that already lies
contiguous the op wins 62 of the 72 batches, at worst 0.77x
([op_sdpa.json](../benchmarks/results/op_sdpa.json))."""

VLLM = "op_vllm.json"

Headline = dict[str, dict[str, Any]]


def numbers(headline: Headline, versus_vllm: dict[str, Any] | None = None) -> str:
    """docs/numbers.md: a table for each section, with machine, date and command.

    versus_vllm  the document of benchmarks/op_vllm.py, whose cases follow the CPU kernel's numbers
    """
    parts = [HEAD]
    for title, rows in SECTIONS.items():
        parts += [f"\n## {title}\n", "| what | value | machine | date | command |"]
        parts += ["|---|---:|---|---|---|"]
        for name, text in rows.items():
            entry = headline.get(name, {})
            command = f"`{entry['command']}`" if "command" in entry else "-"
            cells = (text, _value(entry), entry.get("machine", "-"), entry.get("date", "-"))
            parts.append(f"| {' | '.join(cells)} | {command} |")
        if title == "The kernel on a CPU" and versus_vllm:
            parts += _vllm_cases(versus_vllm)
    return "\n".join(parts) + "\n"


def _vllm_cases(document: dict[str, Any]) -> list[str]:
    threads, (q_heads, kv_heads, dim) = document["threads"], document["heads"]
    parts = [
        f"\nAgainst vLLM {document['peer']['vllm']}'s CPU attention, case by case: "
        f"{q_heads}/{kv_heads} heads of {dim}, {threads} threads, medians of alternating rounds; "
        "512@2048 is a prefill of 512 tokens that ends at 2048, 32x2048 are 32 decodes at 2048.\n",
        "| batch | dtype | ours | vLLM | vLLM's time / ours | of CPU time |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in document["rows"]:
        times = (f"{row[side]:.1f} ms | " for side in ("ours_ms", "vllm_ms"))
        ratios = f"{row['ratio']:.2f}x | {row['cpu_ratio']:.2f}x"
        parts.append(f"| {row['case']} | {row['dtype']} | {''.join(times)}{ratios} |")
    return parts


def six(headline: Headline, by_case: dict[str, dict[str, float]]) -> str:
    """README's table: what, value, and the sentence that a reader needs with it."""
    lines = ["| what | value | where and how |", "|---|---:|---|"]
    for row in SIX:
        value, context = (_filled(text, headline, by_case) for text in (row.value, row.context))
        lines.append(f"| {row.what} | {value} | {context} |")
    return "\n".join(lines)


def _filled(text: str, headline: Headline, by_case: dict[str, dict[str, float]]) -> str:
    def fill(found: re.Match[str]) -> str:
        kind, _, column = found[1].partition(":")
        if not column:
            return _value(headline.get(kind, {}), short=True)
        known = [case[column] for case in by_case.values() if column in case]
        return f"{min(known):.2f}x to {max(known):.2f}x" if known else "-"

    return re.sub(r"\{([^}]+)\}", fill, text)


def _value(entry: dict[str, Any], *, short: bool = False) -> str:
    """Printable value with its unit; short: a number, where the words around it say of what."""
    value, unit = entry.get("value"), str(entry.get("unit", ""))
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit.startswith("%"):
        return f"{value:.2g} {'%' if short else unit}"
    if unit == "ulp":
        return f"{value:.2f} ulp"
    if unit.split(",")[0] == "x":
        return f"{value:.2f}x{'' if short else unit[1:]}"
    return f"{value:.0f} {'' if short else unit}".strip()


def render(readme: str, table: str) -> str:
    """README text with the table between its markers replaced."""
    head, rest = readme.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def stored_cases() -> dict[str, dict[str, float]]:
    """Ratios of each case of the last run of `numbers` on a GPU, empty without one."""
    summary = stored("gpu_numbers.json").get("summary", {})
    return dict(summary.get("by_case", {}))


def stored(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / name
    return dict(json.loads(path.read_text())) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args()
    headline = stored("headline.json")
    readme, page = ROOT / "README.md", ROOT / "docs" / "numbers.md"
    wanted = {
        readme: render(readme.read_text(), six(headline, stored_cases())),
        page: numbers(headline, stored(VLLM)),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if arguments.check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"out of date: {names}; run python benchmarks/readme_table.py")
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
