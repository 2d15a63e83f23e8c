"""One bucket and its trials as the page shows them; see documents.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import sqlalchemy as sa

from pod_integrate.terms.table import TableEntry
from tuner.core import Tuner
from tuner.messages import Pair, StudyKey, iso
from tuner.phases import SCREEN, Duel
from tuner.search.campaign import Campaign
from tuner.search.judge import step_speedups
from tuner.store.rows import Trial, load_trials
from tuner.traffic.loads import BucketLoad
from tuner.view import documents
from tuner.view.shown import span, typical


def bucket_row(
    tuner: Tuner, tx: sa.Connection, load: BucketLoad, total: float, now: float
) -> documents.Bucket:
    """One element of `buckets`; `total` is the attention time of all of them."""
    campaign = tuner.search.campaigns.get(load.key)
    entry = tuner.tables.promoted(load.key)
    known = list(campaign.trials.values()) if campaign is not None else load_trials(tx, load.key)
    share = load.attention_us / total if total > 0 else None
    default = known[0] if known else None
    promoted = _promoted_trial(known, entry)
    evidence = entry.evidence if entry else None
    pair = typical(confirmed(promoted), evidence.median_speedup) if promoted and evidence else None
    alone = _median(pair.baseline_us for pair in screened(default)) if entry is None else None
    return documents.Bucket(
        **load.key._asdict(),
        hybrid=load.hybrid,
        steps=round(load.steps),
        time_share=share,
        attention_us_median=tuner.traffic.medians(tx, load, now).all,
        status=_status(tuner, load.key, campaign, entry),
        default_us=pair.baseline_us if pair else alone,
        best_us=pair.candidate_us if pair else None,
        speedup=evidence.median_speedup if evidence else None,
        lower_bound=evidence.lower_bound if evidence else None,
        confidence=evidence.confidence if evidence else None,
        proven_steps=evidence.steps if evidence else None,
        pairs=sum(len(taken) for trial in known for taken in trial.pairs.values()),
        trials=len(known),
        pruned=sum(trial.state == "pruned" for trial in known),
        default_config=default.config if default else None,
        best_config=entry.config if entry else None,
        best_config_short=entry.config.short() if entry else None,
        updated_s=round(now - max(t.updated for t in known), 1) if known else None,
        expected_saving_share=_saving(share, evidence.median_speedup if evidence else None),
        least_saving_share=_saving(share, evidence.lower_bound if evidence else None),
        pinned=tuner.search.board.holds.is_pinned(load.key),
        method=evidence.method if evidence else None,
    )


def trial_row(trial: Trial, entry: TableEntry | None) -> documents.Trial:
    """One element of /v1/trials; `entry` is what is promoted in its bucket."""
    pairs = confirmed(trial) or screened(trial)
    promoted = entry is not None and entry.evidence.trial == trial.number
    speedups = step_speedups(pairs)
    between = span(speedups)
    speedup = statistics.median(speedups) if between else None
    pair = typical(pairs, speedup)
    return documents.Trial(
        number=trial.number,
        state=trial.state,
        config=trial.config,
        config_short=trial.config.short(),
        median_us=pair.candidate_us if pair else None,
        default_us=pair.baseline_us if pair else None,
        speedup=speedup,
        low=between[0] if between else None,
        high=between[1] if between else None,
        lower_bound=entry.evidence.lower_bound if entry is not None and promoted else None,
        pairs=sum(len(taken) for taken in trial.pairs.values()),
        steps=len(speedups),
        reason=trial.reason or trial.origin,
        time=iso(trial.updated),
    )


def screened(trial: Trial | None) -> list[Pair]:
    """Pairs of the trial's screening."""
    return trial.pairs.get(SCREEN, []) if trial is not None else []


def confirmed(trial: Trial) -> list[Pair]:
    """Pairs of the trial's duel with the default, empty before one."""
    return trial.pairs.get(Duel(trial.confirmation), [])


def _promoted_trial(known: list[Trial], entry: TableEntry | None) -> Trial | None:
    number = entry.evidence.trial if entry is not None else None
    return next((trial for trial in known if trial.number == number), None)


def _saving(share: float | None, speedup: float | None) -> float | None:
    return share * (1 - 1 / speedup) if share is not None and speedup is not None else None


def _status(
    tuner: Tuner, key: StudyKey, campaign: Campaign | None, entry: TableEntry | None
) -> documents.Status:
    if entry is not None:
        return "promoted"
    if tuner.search.board.holds.is_pinned(key):
        return "pinned"
    if not any(state.info.can_measure(key.scope) for state in tuner.search.workers.values()):
        return "no worker"
    if tuner.search.parking.is_parked(key, tuner.clock()):
        return "parked"
    if campaign is None or not campaign.trials:
        return "waiting"
    return "default is best" if campaign.resting else "tuning"


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None
