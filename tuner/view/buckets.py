"""One bucket and its trials as the page shows them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.table import TableEntry
from tuner.messages import Pair, StudyKey, iso
from tuner.search.campaign import Campaign
from tuner.search.judge import step_speedups
from tuner.store.rows import Trial, load_trials
from tuner.traffic.ingest import BucketLoad
from tuner.traffic.samples import attention_times
from tuner.traffic.steps import SCREEN
from tuner.view.shown import span, typical

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
    """One element of `buckets`.

    `best_*` and `speedup` are the promoted config's, null before there is one: what screening says
    has no bound. `default_us` and `best_us` are then the times of one pair; before, `default_us` is
    the default's alone.
    """
    campaign = tuner.campaigns.get(load.key)
    entry = promoted_entry(tuner, load.key)
    known = list(campaign.trials.values()) if campaign is not None else load_trials(tx, load.key)
    timed = [us for us, _ in attention_times(tx, load.key)]
    share = load.weight / total if total > 0 else None
    default = known[0] if known else None
    status = _status(tuner, load.key, campaign, entry)
    best = _promoted_trial(known, entry)
    pair = typical(confirmed(best), entry.evidence.median_speedup) if best and entry else None
    alone = _median(pair.baseline_us for pair in screening(default)) if entry is None else None
    return {
        **load.key._asdict(),
        "hybrid": load.hybrid,
        "steps": round(load.steps),
        "time_share": share,
        "attention_us_median": statistics.median(timed) if timed else None,
        "status": status,
        "default_us": pair.baseline_us if pair else alone,
        "best_us": pair.candidate_us if pair else None,
        "speedup": entry.evidence.median_speedup if entry else None,
        "lower_bound": entry.evidence.lower_bound if entry else None,
        "confidence": entry.evidence.confidence if entry else None,
        "proven_steps": entry.evidence.steps if entry else None,
        "pairs": sum(len(taken) for trial in known for taken in trial.pairs.values()),
        "trials": len(known),
        "pruned": sum(trial.state == "pruned" for trial in known),
        "default_config": default.config.to_dict() if default else None,
        "best_config": entry.config.to_dict() if entry else None,
        "best_config_short": entry.config.short() if entry else None,
        "updated_s": round(now - max(t.updated for t in known), 1) if known else None,
        "expected_saving_share": _saving(share, entry.evidence.median_speedup if entry else None),
        "least_saving_share": _saving(share, entry.evidence.lower_bound if entry else None),
    }


def trial_row(trial: Trial, entry: TableEntry | None) -> dict[str, Any]:
    """One element of /v1/trials: confirmation pairs where there are any, else screening.

    `low` and `high` are the slowest and the fastest of its steps; where they are null, because
    there are fewer than two steps, so are the speed-up and the times, which are those of one pair.
    """
    pairs = confirmed(trial) or screening(trial)
    promoted = entry is not None and entry.evidence.trial == trial.number
    speedups = step_speedups(pairs)
    between = span(speedups)
    speedup = statistics.median(speedups) if between else None
    pair = typical(pairs, speedup)
    return {
        "number": trial.number,
        "state": trial.state,
        "config": trial.config.to_dict(),
        "config_short": trial.config.short(),
        "median_us": pair.candidate_us if pair else None,
        "default_us": pair.baseline_us if pair else None,
        "speedup": speedup,
        "low": between[0] if between else None,
        "high": between[1] if between else None,
        "lower_bound": entry.evidence.lower_bound if entry is not None and promoted else None,
        "pairs": sum(len(taken) for taken in trial.pairs.values()),
        "steps": len(speedups),
        "reason": trial.reason or trial.origin,
        "time": iso(trial.updated),
    }


def screening(trial: Trial | None) -> list[Pair]:
    """Pairs of the trial's screening."""
    return trial.pairs.get(SCREEN, []) if trial is not None else []


def confirmed(trial: Trial) -> list[Pair]:
    """Pairs of the trial's duel with the default, empty before one."""
    return trial.pairs.get(f"confirm:{trial.confirmation}:default", [])


def _promoted_trial(known: list[Trial], entry: TableEntry | None) -> Trial | None:
    number = entry.evidence.trial if entry is not None else None
    return next((trial for trial in known if trial.number == number), None)


def _saving(share: float | None, speedup: float | None) -> float | None:
    return share * (1 - 1 / speedup) if share is not None and speedup is not None else None


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
