"""Putting together what leaves the core: work for a worker or a server, an entry for a table."""

from __future__ import annotations

import uuid

from pod_integrate.terms.experiment import Experiment
from pod_integrate.terms.table import Evidence, TableEntry
from tuner.messages import StudyKey, Task, iso
from tuner.search.campaign import Assignment
from tuner.search.experiments import Running
from tuner.search.stages import Change
from tuner.settings import TunerSettings


def make_task(settings: TunerSettings, key: StudyKey, work: Assignment, lost: int) -> Task:
    """`work` as a task for a worker."""
    trial, steps = work.stage.trial, work.steps or []
    taken = sum(len(pairs) for pairs in trial.pairs.values())
    return Task(
        id=uuid.uuid4().hex,
        **key._asdict(),
        number=trial.number,
        phase=str(work.stage.phase),
        baseline=work.baseline.to_dict(),
        candidate=trial.config.to_dict(),
        batches=[sample.lengths for sample in steps],
        step_pairs=settings.step_pairs,
        seconds=settings.slice_seconds,
        verify=work.verify,
        layers=max(sample.layers for sample in steps),
        seed=settings.seed + 1_000_003 * trial.number + taken,
        lost=lost,
    )


def make_experiment(running: Running, work: Assignment, seconds: float) -> Experiment:
    """`work` as an experiment for a server."""
    return Experiment(
        id=running.id,
        bucket=running.key.bucket,
        number=running.trial,
        phase=str(running.phase),
        baseline=work.baseline.to_dict(),
        candidate=work.stage.trial.config.to_dict(),
        steps=running.wanted,
        seconds=seconds,
        verify=work.verify,
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
        method=change.method,
        measured_at=iso(now),
        build=build,
        trial=change.trial.number,
    )
    return TableEntry(change.trial.config, evidence)
