"""The headline numbers of tuning on live steps, from the documents of the part `live`."""

from __future__ import annotations

from typing import Any

_LIVE = {
    "llama8b": "pod-attn bench gpu -- live --model llama8b",
    "smollm2": "pod-attn bench gpu -- live --model smollm2 --weights FILE",
}
Headline = tuple[str, float, str, str]


def live_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """(name, value, unit, command) of what the folder holds of it."""
    found: dict[str, Headline] = {}
    # What both models have is the larger one's.
    for model, command in _LIVE.items():
        document = documents.get(f"live_{model}", {})
        for line in _live_lines(model, document, command):
            found.setdefault(line[0], line)
    return list(found.values())


def _live_lines(model: str, document: dict[str, Any], command: str) -> list[Headline]:
    found: list[Headline] = []
    speedup = document.get("gain", {}).get("speedup")
    if speedup is not None:
        (q_heads, kv_heads, head_dim), layers = (
            document["load"]["heads"],
            document["load"]["layers"],
        )
        shape = f"{q_heads}/{kv_heads} heads of {head_dim}, {layers} layers"
        found.append((f"live.gpu_speedup_{model}", speedup, f"x, all attention, {shape}", command))
    if document.get("decode_tuned_share") is not None:
        share = document["decode_tuned_share"]
        found.append(("live.decode_steps_tuned_share", share, "share of their time", command))
        if model != next(iter(_LIVE)):
            name = f"live.decode_steps_tuned_share_{model}"
            found.append((name, share, "share of their time", command))
    if document.get("overhead"):
        cost, interval = document["overhead"]["cost"], document["overhead"]["interval"]
        low, high = (100 * end for end in interval)
        unit = f"% of output tokens/s, 95 % interval {low:.2f} to {high:.2f}"
        found.append(("live.gpu_overhead_pct", 100 * cost, unit, command))
    rollback = document.get("rollback") or {}
    if rollback.get("steps") is not None:
        unit = f"steps of its bucket, of a config {rollback['speedup']:.2f} times as fast"
        found.append(("live.rollback_steps", rollback["steps"], unit, command))
    return found
