"""Tables and the picture of docs/gpu.md, drawn from result files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from benchmarks.gpu.speed.summary import of_case

_CASES = (
    ("fused us", "fused_us", ".0f"),
    ("default us", "fused_default_us", ".0f"),
    ("our serial us", "serial_us", ".0f"),
    ("any serial us", "best_serial_us", ".0f"),
    ("vs our serial", "fused_vs_serial", ".2f"),
    ("vs any serial", "fused_vs_best_serial", ".2f"),
    ("vs BatchPOD", "fused_vs_batchpod", ".2f"),
    ("vs BatchAttention", "fused_vs_batchattention", ".2f"),
    ("over floor", "floor_ratio", ".2f"),
)
_RATIOS = {
    "fused_vs_serial": "our serial / fused",
    "fused_vs_best_serial": "any serial / fused",
    "fused_vs_batchpod": "BatchPOD / fused",
    "fused_vs_batchattention": "BatchAttention / fused",
    "default_vs_serial": "our serial / default",
    "default_vs_best_serial": "any serial / default",
    "default_vs_batchpod": "BatchPOD / default",
    "default_vs_batchattention": "BatchAttention / default",
}
_SPREAD = ("geomean", "min", "p10", "median", "p90", "max")
_LINES = ("serial", "best_serial", "batchpod")
_COLOURS = ("#4c72b0", "#dd8452", "#55a868")
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 260, 48, 16


def replaced(text: str, name: str, drawn: str) -> str:
    """`text` with what stands between `<!-- name:begin -->` and its end replaced.

    Raises ValueError when the marks are missing.
    """
    marks = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    block = re.compile(f"{re.escape(marks[0])}.*{re.escape(marks[1])}", re.DOTALL)
    if not block.search(text):
        raise ValueError(f"the document lacks {marks[0]} and {marks[1]}, between which rows go")
    return block.sub(lambda _: f"{marks[0]}\n{drawn}\n{marks[1]}", text)


def cases(numbers: dict[str, Any]) -> str:
    """One row per case; a number that was not measured is a dash."""
    heads = ["case", "prefill", "decodes", *(name for name, _, _ in _CASES)]
    rows = []
    for name, entry in numbers["cases"].items():
        ratios = of_case(entry)
        cells = [_cell(ratios, key, how) for _, key, how in _CASES]
        rows.append([name, entry["prefill"], entry["decodes"], *cells])
    drawn = table(heads, rows, texts=3)
    again = sorted(name for name, entry in numbers["cases"].items() if "machine" in entry)
    if again:
        drawn += f"\n\nMeasured again, in a later run than the other rows: {', '.join(again)}."
    return drawn


def grid(document: dict[str, Any], picture: str) -> str:
    """How the ratios are spread over the sample of the paper's sweep; `picture` shows it."""
    heads = ["ratio", "cases", *_SPREAD, "below 1", "below 0.98"]
    tables = []
    for kind, title in (
        ("all", "All cases of the sample"),
        ("balanced", "Cases in which each op alone takes at least 20 % of both"),
    ):
        rows = [
            [
                label,
                str(spread["cases"]),
                *(f"{spread[key]:.2f}" for key in _SPREAD),
                f"{spread['below_1']:.0%}",
                f"{spread['below_098']:.1%}",
            ]
            for key, label in _RATIOS.items()
            if (spread := document["summary"][kind].get(key))
        ]
        tables.append(f"{title}:\n\n{table(heads, rows, texts=1)}")
    shown = f"![Ratios of all cases in ascending order]({picture})"
    return "\n\n".join([*tables, shown])


def transformers(document: dict[str, Any]) -> str:
    """Runs of generate_batch, and logits on the same tokens."""
    runs = []
    for name, run in document["runs"].items():
        flips = document.get("differences", {}).get(name, {})
        row = [f"`{name}`".replace("|", "\\|"), f"{run['tokens_per_second']:.0f}"]
        row += [f"{run['answers_equal']:.0%}", f"{run['tokens_equal']:.0%}"]
        runs.append([*row, _cell(flips, "near_ties", ".0%"), _cell(flips, "gap_median", ".2g")])
    heads = ["generate_batch", "tokens/s", "answers equal", "tokens before a difference"]
    drawn = table([*heads, "near ties", "median gap"], runs, texts=1)
    logits = [
        [f"`{name}`", *(_cell(found, key, how) for _, key, how in _LOGITS)]
        for name, found in document.get("logits", {}).items()
        if name != "fp32_margin"
    ]
    if logits:
        heads = ["logits against fp32", *(head for head, _, _ in _LOGITS)]
        drawn += f"\n\n{table(heads, logits, texts=1)}"
    return drawn


_LOGITS = (
    ("mean error", "logit_mean", ".2g"),
    ("largest error", "logit_max", ".2g"),
    ("mean KL, nats", "kl_mean", ".2g"),
    ("same top token", "top1_equal", ".1%"),
)


def sglang(document: dict[str, Any]) -> str:
    """Runs of SGLang; a document of one pass per engine has no figures of saturation or apart."""
    rows = []
    for name, run in document["runs"].items():
        row = [f"`{name}`", _cell(run.get("saturated", {}), "output_tokens_per_second", ",.0f")]
        row += [" / ".join(_cell(run, key, how) for key in keys) for keys, how in _TIMES.values()]
        row += [_cell(run, "tokens_equal", ".0%")]
        rows.append([*row, _cell(run.get("passes_equal", {}), "tokens_equal", ".0%")])
    against = f"tokens before a difference from `{document['compared_with']}`"
    heads = ["backend", "saturated output tokens/s", *_TIMES, against, "from its own next pass"]
    drawn = table(heads, rows, texts=1)
    counted = {run.get("passes_counted", 1) for run in document["runs"].values()}
    if counted == {1}:
        return f"{drawn}\n\nOne pass of each engine."
    return (
        f"{drawn}\n\nMedians of {max(counted)} passes in one engine, after one that is not counted."
    )


_TIMES = {
    "TTFT of prompts p50 / p99 ms": (("ttft_ms_prompts_p50", "ttft_ms_prompts_p99"), ".0f"),
    "TTFT of the burst p50 ms": (("ttft_ms_running_p50",), ".0f"),
    "ITL p50 / p99 ms": (("itl_ms_p50", "itl_ms_p99"), ".2f"),
}


def _cell(values: dict[str, Any], key: str, how: str) -> str:
    return format(values[key], how) if key in values else "-"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """Markdown; the first `texts` columns are aligned to the left."""
    lines = [f"| {' | '.join(heads)} |"]
    lines.append(f"|{'---|' * texts}{'---:|' * (len(heads) - texts)}")
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def spread_picture(document: dict[str, Any]) -> str:
    """SVG: for each ratio, all cases in ascending order; above the line at 1 ours is faster.

    Ours is the best of the configs that were tried, the default where no other was.
    """
    whole = [of_case(entry) for entry in document["cases"].values() if "cut" not in entry]
    ours = "fused" if "fused_vs_serial" in document["summary"]["all"] else "default"
    names = [f"{ours}_vs_{other}" for other in _LINES]
    lines = {name: sorted(r[name] for r in whole if name in r) for name in names}
    values = [value for line in lines.values() for value in line]
    low, high = min([0.8, *values]), max([1.4, *values])
    bottom = _TOP + _HEIGHT

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * _HEIGHT

    parts = []
    for tenth in range(int(low * 10) + 1, int(high * 10) + 1):
        at, width = y(tenth / 10), 1.5 if tenth == 10 else 0.3
        parts.append(
            f'<path d="M{_LEFT} {at:.1f}h{_WIDTH}" stroke="#888" stroke-width="{width}"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>'
        )
    for i, (name, line) in enumerate(lines.items()):
        step = _WIDTH / max(1, len(line) - 1)
        points = " ".join(f"{_LEFT + j * step:.1f},{y(v):.1f}" for j, v in enumerate(line))
        stroke = f'fill="none" stroke="{_COLOURS[i]}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {stroke}/>')
        label = escape(f"{_RATIOS[name]} ({len(line)} cases)")
        parts.append(f'<text x="{_LEFT + 220 * i}" y="{bottom + 20}" fill="{_COLOURS[i]}">{label}')
        parts.append("</text>")
    size = f'width="{_LEFT + _WIDTH + 16}" height="{bottom + 32}"'
    font = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
