"""Putting together what leaves the core: a task for a worker, an entry for a table."""

from __future__ import annotations

import uuid

from pod_integrate.terms.table import Evidence, TableEntry
from tuner.messages import StudyKey, Task, iso
from tuner.search.campaign import Work
from tuner.search.stages import Change
from tuner.settings import TunerSettings


def make_task(settings: TunerSettings, key: StudyKey, work: Work, lost: int) -> Task:
    """`work` as a task for a worker."""
    trial = work.stage.trial
    taken = sum(len(pairs) for pairs in trial.pairs.values())
    return Task(
        id=uuid.uuid4().hex,
        **key._asdict(),
        number=trial.number,
        phase=str(work.stage.phase),
        baseline=work.baseline.to_dict(),
        candidate=trial.config.to_dict(),
        batches=[sample.lengths for sample in work.steps],
        step_pairs=settings.step_pairs,
        seconds=settings.slice_seconds,
        verify=work.verify,
        layers=max(sample.layers for sample in work.steps),
        seed=settings.seed + 1_000_003 * trial.number + taken,
        lost=lost,
    )


def make_entry(change: Change, build: str, confidence: float, now: float) -> TableEntry | None:
    """The table entry of a promotion with its evidence; None for a roll back."""
    if change.trial is None:
        return None
    proof = change.verdict.proof
    assert proof.speedup is not None and proof.lower_bound is not None
    evidence = Evidence(
        pairs=proof.pairs,
        steps=proof.steps,
        median_speedup=proof.speedup,
        lower_bound=proof.lower_bound,
        confidence=confidence,
        method="replay",
        measured_at=iso(now),
        build=build,
        trial=change.trial.number,
    )
    return TableEntry(change.trial.config, evidence)
