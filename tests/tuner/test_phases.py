"""Phases of a trial have one form as text, which rows of earlier releases have too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuner_support import KEY, RecordedBench, drive, message, split_matters

from tuner import phases
from tuner.core import Tuner
from tuner.messages import Pair
from tuner.phases import SCREEN, Duel, Phase, Recheck
from tuner.search.stages import Finding
from tuner.store.rows import load_trials

_NUMBER = st.integers(0, 1 << 31)


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (SCREEN, "screen"),
        (Duel(3), "confirm:3:default"),
        (Duel(3, against=12), "confirm:3:12"),
        (Recheck(0), "recheck:0"),
    ],
)
def test_stored_text_stays_what_it_was(phase: Phase, text: str) -> None:
    assert str(phase) == text and phases.parse(text) == phase


@given(st.one_of(
    st.just(SCREEN), st.builds(Recheck, _NUMBER),
    st.builds(Duel, _NUMBER, st.none() | _NUMBER),
))  # fmt: skip
def test_every_phase_is_read_back(phase: Phase) -> None:
    assert phases.parse(str(phase)) == phase


@pytest.mark.parametrize("text", ["", "screen ", "confirm:1", "confirm:x:default", "recheck:-1"])
def test_other_text_is_no_phase(text: str) -> None:
    with pytest.raises(ValueError, match="no phase"):
        phases.parse(text)


def test_evidence_that_nobody_asked_for_decides_and_is_kept(tuner: Tuner) -> None:
    """What servers measure themselves arrives without a task or a lease."""
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters), tasks=3)
    search, now = tuner.search, tuner.clock()
    campaign = search.campaigns[KEY]
    trial = next(t for t in campaign.trials.values() if t.state == "complete" and t.number)
    trial.confirmation = 1
    pairs = [Pair(1200.0, 1000.0, f"{i:08x}") for i in range(10)]
    search.take(KEY, Finding(trial=trial.number, phase=Duel(1), pairs=pairs), now)
    assert campaign.promoted is trial and tuner.tables.promoted(KEY) is not None
    with tuner.store.read() as tx:
        stored = {t.number: t for t in load_trials(tx, KEY)}[trial.number]
    assert stored.pairs[Duel(1)] == pairs and stored.fate == "promoted"


def test_a_recheck_of_what_is_no_longer_promoted_takes_nothing_away(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    campaign = tuner.search.campaigns[KEY]
    other = next(t for t in campaign.trials.values() if t is not campaign.promoted)
    slow = [Pair(500.0, 1000.0, f"{i:08x}") for i in range(10)]
    found = Finding(trial=other.number, phase=Recheck(0), pairs=slow, last=True)
    tuner.search.take(KEY, found, tuner.clock())
    assert campaign.promoted is not None and tuner.tables.promoted(KEY) is not None
