"""One bucket and its trials as the page shows them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.table import TableEntry
from tuner.campaign import Campaign
from tuner.ingest import BucketLoad
from tuner.model import Pair, StudyKey, iso
from tuner.promote import step_speedups
from tuner.records import Trial, load_trials
from tuner.samples import attention_times
from tuner.steps import SCREEN

if TYPE_CHECKING:
    from tuner.core import Tuner


def promoted_entry(tuner: Tuner, key: StudyKey) -> TableEntry | None:
    """The table entry in force for exactly this bucket."""
    try:
        return tuner.publisher.entry(key.scope, key.parsed()[2])
    except PodAttentionError:
        return None


def bucket_row(
    tuner: Tuner, tx: sa.Connection, load: BucketLoad, total: float, now: float
) -> dict[str, Any]:
    """One element of `buckets`. `best_*` are the promoted config's, else the best trial's so far,
    else (the search ended with the default) null; a speed-up without a lower bound comes from
    screening and decides nothing."""
    campaign = tuner.campaigns.get(load.key)
    entry = promoted_entry(tuner, load.key)
    known = list(campaign.trials.values()) if campaign is not None else load_trials(tx, load.key)
    timed = [us for us, _ in attention_times(tx, load.key)]
    share = load.weight / total if total > 0 else None
    default = known[0] if known else None
    status = _status(tuner, load.key, campaign, entry)
    best, pairs = (None, []) if status == "default is best" else _best(known, entry)
    speedup = entry.evidence.median_speedup if entry else _median_speedup(pairs)
    return {
        **load.key._asdict(),
        "hybrid": load.hybrid,
        "steps": round(load.steps),
        "time_share": share,
        "attention_us_median": statistics.median(timed) if timed else None,
        "status": status,
        "default_us": _median(pair.baseline_us for pair in pairs or screening(default)),
        "best_us": _median(pair.candidate_us for pair in pairs),
        "speedup": speedup,
        "lower_bound": entry.evidence.lower_bound if entry else None,
        "confidence": entry.evidence.confidence if entry else None,
        "proven_steps": entry.evidence.steps if entry else None,
        "pairs": sum(len(taken) for trial in known for taken in trial.pairs.values()),
        "trials": len(known),
        "pruned": sum(trial.state == "pruned" for trial in known),
        "default_config": default.config.to_dict() if default else None,
        "best_config": best.config.to_dict() if best else None,
        "best_config_short": best.config.short() if best else None,
        "updated_s": round(now - max(t.updated for t in known), 1) if known else None,
        "expected_saving_share": (
            share * (1 - 1 / entry.evidence.median_speedup) if entry and share is not None else None
        ),
    }


def trial_row(trial: Trial, entry: TableEntry | None) -> dict[str, Any]:
    """One element of /v1/trials: confirmation pairs where there are any, else screening."""
    pairs = confirmed(trial) or screening(trial)
    promoted = entry is not None and entry.evidence.trial == trial.number
    return {
        "number": trial.number,
        "state": trial.state,
        "config": trial.config.to_dict(),
        "config_short": trial.config.short(),
        "median_us": _median(pair.candidate_us for pair in pairs),
        "default_us": _median(pair.baseline_us for pair in pairs),
        "speedup": _median_speedup(pairs),
        "lower_bound": entry.evidence.lower_bound if entry is not None and promoted else None,
        "pairs": sum(len(taken) for taken in trial.pairs.values()),
        "steps": len(step_speedups(pairs)),
        "reason": trial.reason or trial.origin,
        "time": iso(trial.updated),
    }


def screening(trial: Trial | None) -> list[Pair]:
    """Pairs of the trial's screening."""
    return trial.pairs.get(SCREEN, []) if trial is not None else []


def confirmed(trial: Trial) -> list[Pair]:
    """Pairs of the trial's duel with the default, empty before one."""
    return trial.pairs.get(f"confirm:{trial.confirmation}:default", [])


def _best(known: list[Trial], entry: TableEntry | None) -> tuple[Trial | None, list[Pair]]:
    if entry is not None:
        for trial in known:
            if trial.number == entry.evidence.trial:
                return trial, confirmed(trial)
    measured = [t for t in known if t.value is not None and t.origin != "default"]
    best = min(measured, key=lambda t: (t.value, t.number), default=None)
    return best, screening(best)


def _status(
    tuner: Tuner, key: StudyKey, campaign: Campaign | None, entry: TableEntry | None
) -> str:
    if entry is not None:
        return "promoted"
    if not any(state.info.can_measure(key.scope) for state in tuner.workers.values()):
        return "no worker"
    if tuner.parking.is_parked(key, tuner.clock()):
        return "parked"
    if campaign is None or not campaign.trials:
        return "waiting"
    return "default is best" if campaign.resting else "tuning"


def _median(values: Any) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def _median_speedup(pairs: list[Pair]) -> float | None:
    return _median(step_speedups(pairs))
