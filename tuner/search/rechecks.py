"""Fresh pairs that somebody else measured, e.g. the demo's last replay: they can only take away.

A promotion needs steps that the core drew and a worker that it asked. Doubt needs less: whoever
may post traces may post pairs of a promoted config against the default, and when these say slower,
it is rolled back like after a re-check of the core's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import ShapeError, TraceError
from tuner.messages import Recheck, StudyKey
from tuner.traffic import samples
from tuner.traffic.samples import Sample
from tuner.traffic.steps import RECHECK, distinct, fresh

if TYPE_CHECKING:
    from tuner.core import Tuner


def decode(body: bytes) -> Recheck:
    """Parse and check a posted message; raises TraceError that names the first bad place."""
    try:
        message = msgspec.json.decode(body, type=Recheck)
        message.key.parsed()
    except (msgspec.MsgspecError, ValueError, RecursionError, ShapeError) as error:
        raise TraceError(f"re-check is malformed: {str(error)[:500]}") from error
    return message


def file(tuner: Tuner, message: Recheck) -> str:
    """What became of the config: `kept`, `rolled back`, `open` or `not promoted` (any more).

    `open` is fewer steps than a verdict needs.
    """
    key, now = message.key, tuner.clock()
    # Only what a table lists has a campaign to load: strangers' keys cost nothing.
    entry = tuner.publisher.entry(key.scope, key.parsed()[2])
    if entry is None or entry.evidence.trial != message.trial:
        return "not promoted"
    with tuner.store.begin() as tx:
        campaign = tuner.campaign(tx, key, now)
    trial = campaign.promoted if campaign is not None else None
    if campaign is None or trial is None:
        return "not promoted"
    passed, phase = trial.rechecks, f"{RECHECK}:{trial.rechecks}"
    tuner.change(
        key, now,
        lambda tx: campaign.report(
            tx, trial, phase, "measured", "", message.pairs, now, last=True
        ),
    )  # fmt: skip
    if campaign.promoted is not trial:
        return "rolled back"
    return "kept" if trial.rechecks > passed else "open"


def replayable(tuner: Tuner, tx: sa.Connection, key: StudyKey) -> list[Sample]:
    """The kept steps of a bucket, those first on which its promoted config was not chosen."""
    pool = distinct(samples.samples(tx, key))
    campaign = tuner.campaigns.get(key)
    if campaign is None or campaign.promoted is None:
        return pool
    unseen = fresh(pool, campaign.promoted, f"{RECHECK}:")
    return unseen + [sample for sample in pool if sample not in unseen]
