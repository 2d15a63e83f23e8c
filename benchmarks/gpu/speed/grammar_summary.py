"""What the times of the public batches come to."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.speed.summary import geomean

# A case below this is counted as lost.
LOST = 0.98
# Batches that nobody published.
GIVEN = "given"
Entries = dict[str, dict[str, Any]]


def ratios(entry: dict[str, Any]) -> dict[str, float]:
    """Of one batch; {} unless others answered each of its ops as we do.

    vs_pair     best serial pair of anybody / default
    vs_anybody  the same, single calls of other libraries among them
    """
    if "us" not in entry or not all(entry["against"].values()):
        return {}
    us, pair = entry["us"], best_pair(entry)
    anybody = min(pair, us.get("single", pair))
    return {
        "vs_pair": round(pair / us["default"], 4),
        "vs_anybody": round(anybody / us["default"], 4),
    }


def best_pair(entry: dict[str, Any]) -> float:
    """Us of the best serial pair: the two quickest kernels, or our two launches."""
    us: dict[str, float] = entry["us"]
    return min(us[name] for name in ("pair", "serial") if name in us)


def summarize(entries: Entries) -> dict[str, Any]:
    """By group, all published batches first: cases and both ratios' spread.

    Batches that were given by hand count in their own group alone.
    """
    groups: dict[str, list[str]] = {"all": []}
    for name, entry in entries.items():
        published = ["all", entry["heads"]] if entry["set"] != GIVEN else []
        for group in (*published, entry["set"]):
            groups.setdefault(group, []).append(name)
    found = {name: ratios(entry) for name, entry in entries.items()}
    return {
        group: _spread({n: found[n] for n in names if found[n]}) for group, names in groups.items()
    }


def _spread(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    if not found:
        return {"cases": 0}
    spread: dict[str, Any] = {"cases": len(found)}
    for key in ("vs_pair", "vs_anybody"):
        values = {name: one[key] for name, one in found.items()}
        worst = min(values, key=values.__getitem__)
        lost = sum(value < LOST for value in values.values())
        spread[key] = {
            "geomean": round(geomean(list(values.values())), 4),
            "min": values[worst],
            "worst": worst,
            "below_098_pct": round(100 * lost / len(values), 2),
        }
    return spread


def line(name: str, entry: dict[str, Any]) -> str:
    """One printable line of a batch."""
    if "error" in entry:
        return f"{name}: {entry['error']}"
    failed = [
        f"{who} ({run['error'][:60]})" for who, run in entry["first"].items() if "error" in run
    ]
    told = ", ".join(f"{key} {value:g}" for key, value in {**ratios(entry), **entry["us"]}.items())
    return f"{name}: {told}; pair: {' + '.join(entry['pair'])}" + (
        f"; left out: {', '.join(failed)}" if failed else ""
    )
