"""The headline numbers of trained weights in SGLang on a GPU."""

from __future__ import annotations

from typing import Any

Headline = tuple[str, float, str, str]
COMMAND = "python -m benchmarks.gpu real --weights FILE"
_PLAIN, _FP8, _STOCK_FP8 = "pod, mixed", "pod fp8_e4m3, mixed", "fa3 fp8_e4m3, mixed"
_RATIOS = {
    "real.perplexity_ratio": (_PLAIN, "prefill"),
    "real.decode_perplexity_ratio": (_PLAIN, "decode"),
    "fp8.perplexity_ratio": (_FP8, "prefill"),
    "fp8.decode_perplexity_ratio": (_FP8, "decode"),
    "fp8.stock_perplexity_ratio": (_STOCK_FP8, "prefill"),
}


def real_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """(name, value, unit, command) of the folder's real.json, where it has them."""
    compared = documents.get("real", {}).get("compared", {})
    runs = compared.get("runs", {})
    found: list[Headline] = []
    for name, (run, way) in _RATIOS.items():
        ratio = runs.get(run, {}).get(way)
        if ratio is not None:
            unit = f"x, {ratio['tokens']} tokens, over bf16 {compared['with']}"
            found.append((name, ratio["ratio"], unit, COMMAND))
    answers = runs.get(_PLAIN, {}).get("answers", {})
    if answers.get("compared"):
        parted = answers["compared"] - answers["equal"]
        control = compared["control"]
        ties = (
            f", {answers['near_ties']} of {parted} others near ties"
            if "near_ties" in answers
            else ""
        )
        itself = f", stock itself {control['equal']} of {control['compared']}"
        unit = f"of {answers['compared']} answers in bf16{ties}{itself}"
        found.append(("real.gpu_requests_token_equal", answers["equal"], unit, COMMAND))
    return found
