"""The cost model of the GPU kernel against published comparisons, and its answers for 12 cases.

    python benchmarks/kernel_model.py [--sensitivity]

Nothing here is a measurement: the checks compare a simulation with numbers that others published.
--sensitivity repeats the checks with each assumed constant changed (about ten minutes). Results go
to benchmarks/results; in a checkout the tables of docs/model.md are redrawn from them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import _results
from pod_integrate.devices.registry import target_of
from pod_integrate.model import demand, engine, published
from pod_integrate.model.agreement.report import all_checks
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.explain import FLOOR_DEVICES, LABEL, Question, explain
from pod_integrate.model.floors import CASES, CaseSpec

COMMAND = "python benchmarks/kernel_model.py"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "model.md"
# Module, constant, what to set it to instead.
VARIATIONS: tuple[tuple[Any, str, float], ...] = (
    (demand, "SOLO_SHARE", 0.7),
    (demand, "SOLO_SHARE", 1.0),
    (demand, "CTA_NS", 3000.0),
    (engine, "KNEE", 2.0),
    (engine, "KNEE", 64.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sensitivity", action="store_true", help="vary the assumed constants")
    options = parser.parse_args()
    checks = [check._asdict() for check in all_checks()]
    agreements = sum(check["agrees"] for check in checks)
    document = {
        "command": COMMAND,
        "label": LABEL,
        "agreements": agreements,
        "checks": checks,
        "cases": [_case(case) for case in CASES],
        "sensitivity": _sensitivity() if options.sensitivity else _stored("sensitivity"),
    }
    path = _results.write("kernel_model", document)
    _results.record_headline("kernel.model_agreements", agreements, "checks", COMMAND)
    _results.record_headline("kernel.model_checks", len(checks), "checks", COMMAND)
    if PAGE.exists():
        PAGE.write_text(render(PAGE.read_text(), document))
    print(f"{path}: {agreements} of {len(checks)} published comparisons agree")


def _case(case: CaseSpec) -> dict[str, Any]:
    """Simulated times of a case with each device's default config, us."""
    row: dict[str, Any] = {"case": case.name}
    for name in FLOOR_DEVICES:
        device = DEVICES[name]
        config = target_of(device.key).default_config(case.geometry)
        answer = explain(Question(case.lengths, case.geometry, config, device))
        times = {strategy: round(run["us"], 1) for strategy, run in answer["simulated"].items()}
        row[name] = times | {"real_floor": round(answer["floors"][name]["real"]["fused_us"], 1)}
    return row


def _sensitivity() -> list[dict[str, Any]]:
    rows = []
    for module, constant, value in VARIATIONS:
        shipped = getattr(module, constant)
        setattr(module, constant, value)
        published.time_us.cache_clear()
        agreeing = [check.name for check in all_checks() if check.agrees]
        setattr(module, constant, shipped)
        published.time_us.cache_clear()
        rows.append(
            {
                "constant": constant,
                "shipped": shipped,
                "value": value,
                "agreements": len(agreeing),
                "agreeing": agreeing,
            }
        )
    return rows


def _stored(key: str) -> Any:
    path = _results.RESULTS / "kernel_model.json"
    return json.loads(path.read_text())[key] if path.exists() else []


def render(page: str, document: dict[str, Any]) -> str:
    """The page with its three tables redrawn from a result."""
    tables = {
        "agreement": _agreement_table(document),
        "cases": _case_table(document["cases"]),
        "sensitivity": _sensitivity_table(document),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, rest = page.split(begin)
        _, tail = rest.split(end)
        page = "\n".join([f"{head}{begin}", *lines, f"{end}{tail}"])
    return page


def _agreement_table(document: dict[str, Any]) -> list[str]:
    checks = document["checks"]
    return [
        f"{document['agreements']} of {len(checks)} agree.",
        "",
        "| comparison | source | published | criterion | model | agrees |",
        "|---|---|---|---|---|---|",
        *(
            f"| {c['name']} | {c['source']} | {c['published']} | {c['criterion']} | {c['model']} "
            f"| {'yes' if c['agrees'] else '**no**'} |"
            for c in checks
        ),
    ]


def _case_table(cases: list[dict[str, Any]]) -> list[str]:
    titles = " | ".join(DEVICES[name].label for name in FLOOR_DEVICES)
    lines = [f"| case | {titles} |", "|---|" + "--:|" * len(FLOOR_DEVICES)]
    for row in cases:
        cells = [
            " / ".join(
                f"{row[name][key]:.0f}" for key in ("real_floor", "fused", "serial", "streams")
            )
            for name in FLOOR_DEVICES
        ]
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return lines


def _sensitivity_table(document: dict[str, Any]) -> list[str]:
    lines = ["| constant | shipped | instead | agree |", "|---|--:|--:|--:|"]
    for row in document["sensitivity"]:
        cells = (f"`{row['constant']}`", f"{row['shipped']:g}", f"{row['value']:g}")
        lines.append(f"| {' | '.join(cells)} | {row['agreements']} of {len(document['checks'])} |")
    return lines


if __name__ == "__main__":
    main()
