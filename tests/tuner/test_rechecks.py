"""Pairs that others measured: they can roll a promotion back and do nothing else."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from api_support import TOKEN, Served
from tuner_support import (
    BUCKET,
    KEY,
    SCOPE,
    RecordedBench,
    SteppedBench,
    drive,
    kinds,
    message,
    samples,
    split_matters,
)

from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MIN_STEPS, ConfigTable
from tuner.core import Tuner
from tuner.messages import Pair, RecheckPairs, StepLengths
from tuner.phases import Recheck
from tuner.view.overview import SAMPLES_SHOWN


def promoted(tuner: Tuner) -> int:
    """Promote a config; returns its trial."""
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    return trial_of(tuner)


def trial_of(tuner: Tuner) -> int:
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    return table.entries[Bucket.parse(BUCKET)].evidence.trial


def recheck(trial: int, speedup: float, steps: int = MIN_STEPS, **changes: Any) -> RecheckPairs:
    pairs = [Pair(1000.0 * speedup, 1000.0, f"{i:08x}") for i in range(steps)]
    return RecheckPairs(**KEY._asdict() | {"trial": trial, "pairs": pairs} | changes)


@pytest.mark.parametrize(
    ("speedup", "steps", "verdict"),
    [
        (0.9, MIN_STEPS, "rolled back"),
        (0.995, MIN_STEPS, "rolled back"),
        (1.05, MIN_STEPS, "kept"),
        (0.5, 3, "open"),
    ],
)
def test_eight_steps_that_say_slower_roll_a_promotion_back(
    tuner: Tuner, speedup: float, steps: int, verdict: str
) -> None:
    trial = promoted(tuner)
    assert tuner.recheck(recheck(trial, speedup, steps)) == verdict
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    assert bool(table.entries) == (verdict != "rolled back")
    assert ("rollback" in kinds(tuner)) == (verdict == "rolled back")


def test_pairs_without_a_step_are_no_evidence(tuner: Tuner) -> None:
    trial = promoted(tuner)
    assert tuner.recheck(recheck(trial, 1.0, pairs=[Pair(1.0, 9.0)] * 99)) == "open"


def test_what_is_not_promoted_is_neither_judged_nor_loaded(tuner: Tuner) -> None:
    trial = promoted(tuner)
    known = set(tuner.search.campaigns)
    for message_ in (recheck(trial + 1, 0.5), recheck(trial, 0.5, bucket="d8@2k")):
        assert tuner.recheck(message_) == "not promoted"
    assert tuner.recheck(recheck(0, 0.5, build="another")) == "not promoted"
    assert set(tuner.search.campaigns) == known and trial_of(tuner) == trial


def test_praise_promotes_nothing(tuner: Tuner) -> None:
    trial = promoted(tuner)
    before = tuner.table(SCOPE)
    assert tuner.recheck(recheck(trial, 50.0, 200)) == "kept"
    assert tuner.table(SCOPE) == before


def test_offered_samples_begin_with_steps_that_chose_nothing(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.0, seed=1))
    (campaign,) = tuner.search.campaigns.values()
    phases = campaign.trials[trial_of(tuner)].pairs.items()
    chosen = {p.batch for phase, pairs in phases if not isinstance(phase, Recheck) for p in pairs}
    (offered,) = samples(tuner, SCOPE)["buckets"]
    digests = [StepLengths(**sample).digest for sample in offered["samples"]]
    assert len(digests) == len(set(digests)) == SAMPLES_SHOWN and not set(digests) & chosen


@pytest.mark.parametrize("served", [TOKEN], indirect=True)
def test_a_recheck_needs_the_token(served: Served, client: httpx.Client) -> None:
    trial = promoted(served.tuner)
    body = msgspec.json.encode(recheck(trial, 0.9))
    assert client.post("/v1/recheck", content=body).status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = client.post("/v1/recheck", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"verdict": "rolled back"})


@pytest.mark.parametrize(
    "broken",
    [
        {"pairs": [[1.0, 0.0, "a"]]},
        {"pairs": [[1.0, 1e11, "a"]]},
        {"pairs": [[1.0, 1.0, "longer than a digest"]]},
        {"pairs": []},
        {"trial": -1},
        {"bucket": "p3@8"},
        {"geometry": "square"},
        {"magic": 1},
    ],
)
def test_a_malformed_recheck_is_a_400_that_says_where(
    client: httpx.Client, broken: dict[str, Any]
) -> None:
    document = msgspec.to_builtins(recheck(1, 0.9)) | broken
    answer = client.post("/v1/recheck", content=msgspec.json.encode(document))
    assert answer.status_code == 400 and "re-check is malformed" in answer.json()["error"]
    assert client.post("/v1/recheck", content=b"\xff{").status_code == 400
