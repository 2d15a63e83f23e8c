"""How exact the op is on the CPU: long and extreme inputs, judged by the law of accuracy.

    python benchmarks/op_accuracy.py [--longest KEYS]

Every case of benchmarks.accuracy.accuracy_cases, in every dtype, split and not, against float64:
the largest error of the lse in ulp, and of both answers over what the law allows (docs/api.md).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from benchmarks import _results
from benchmarks.accuracy.accuracy_cases import LONG, SHORT, AccuracyCase, all_cases
from benchmarks.accuracy.accuracy_law import Judgement, judge
from pod_integrate.devices.registry import device_of
from pod_integrate.measure.batches import Case
from pod_integrate.op import Result, hybrid_attention

COMMAND = "pod-attn bench op-accuracy"
_CPU = torch.device("cpu")
_WORST = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longest", type=int, default=LONG, help="keys of the longest cases")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    cases = all_cases(longest=options.longest)
    found = []
    for number, case in enumerate(cases, 1):
        found.append((case, judge(case, attend)))
        if number % 50 == 0 or number == len(cases):
            print(f"{number} of {len(cases)} cases", flush=True)
    document = _document(found)
    print(document | {"worst_out": None, "worst_lse": None})
    if options.longest != LONG:
        print("results not saved: --longest ran other cases")
        return
    path = _results.write("op_accuracy", {"command": COMMAND, **document})
    within, most = document["within"], document["lse_error_ulp_max_128k"]
    unit = f"cases, of {document['cases']} to 128K keys and logits of 1e6"
    _results.record_headline("op.accuracy_cases", within, unit, COMMAND)
    _results.record_headline("op.lse_error_ulp_max_128k", most, "ulp", COMMAND)
    print(path)


def attend(case: AccuracyCase, inputs: Case) -> Result:
    """The CPU kernel, splitting as the case says."""
    tokens, waves = (256, 8) if case.split else (0, 0)
    config = dataclasses.replace(
        device_of(_CPU).default_config(case.geometry),
        decode_split_tokens=tokens,
        max_prefill_waves=waves,
    )
    return hybrid_attention(*inputs, config=config, **case.features(_CPU))


def _document(found: list[tuple[AccuracyCase, Judgement]]) -> dict[str, Any]:
    verdicts = [verdict for _, verdict in found]
    document: dict[str, Any] = {
        "torch": torch.__version__,
        "cases": len(verdicts),
        "within": sum(verdict.holds for verdict in verdicts),
        "lse_error_ulp_max": round(max(verdict.lse_ulp for verdict in verdicts), 2),
        "worst_out": _worst(verdicts, "out"),
        "worst_lse": _worst(verdicts, "lse"),
    }
    for name, keys in (("1k", SHORT), ("128k", LONG)):
        mine = [verdict for case, verdict in found if case.keys == keys]
        if mine:
            document[f"lse_error_ulp_max_{name}"] = round(max(v.lse_ulp for v in mine), 2)
            document[f"out_over_allowed_max_{name}"] = round(max(v.out for v in mine), 3)
    return document


def _worst(verdicts: list[Judgement], field: str) -> dict[str, float]:
    """The largest errors over what is allowed, by case."""
    ordered = sorted(verdicts, key=lambda verdict: -getattr(verdict, field))[:_WORST]
    return {verdict.case: round(getattr(verdict, field), 3) for verdict in ordered}


if __name__ == "__main__":
    main()
