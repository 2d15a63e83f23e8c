"""People's orders: done or refused with a reason, filed with a name, and kept over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_support import TOKEN, Served
from live_support import LiveServer, ask, entry_of, live_tuner, report, split_gains
from tuner_support import (
    BUCKET,
    DEFAULT,
    KEY,
    SCOPE,
    WORKER,
    Clock,
    bucket,
    kinds,
    message,
    overview,
)
from typer.testing import CliRunner

from pod_integrate.cli.app import app
from pod_integrate.terms.config import PodConfig
from tuner.core import Tuner
from tuner.orders import BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder

ADA: dict[str, Any] = {"who": "ada", "why": "a test"}
HERE = KEY._asdict() | ADA


@pytest.fixture
def tuner(tmp_path: Path, clock: Clock) -> Iterator[Tuner]:
    made = live_tuner(tmp_path, clock)
    yield made
    made.close()


def latest(tuner: Tuner) -> dict[str, Any]:
    decision: dict[str, Any] = overview(tuner)["decisions"][0]
    return decision


def slow_trial(tuner: Tuner, gain: float = -0.1) -> int:
    """A trial whose config is slower, measured on enough steps to be promoted by hand."""
    server = LiveServer(tuner, lambda _config: gain)
    server.run(tuner.next_experiment(ask()))  # type: ignore[arg-type]
    experiment = tuner.next_experiment(ask())
    assert experiment is not None and experiment.number
    trial = tuner.search.campaigns[KEY].trials[experiment.number]
    tuner.report_experiment(report(experiment, server.pairs(experiment, 10)))
    assert trial.state == "pruned" and trial.value is not None
    return experiment.number


@pytest.mark.parametrize("server", ["*", "live-1"])
def test_a_paused_server_gets_nothing_and_what_it_runs_ends(tuner: Tuner, server: str) -> None:
    experiment = tuner.next_experiment(ask())
    assert experiment is not None
    assert tuner.pause(ServerOrder(server=server, **ADA)).done
    told = report(experiment, LiveServer(tuner, split_gains).pairs(experiment, 2), done=False)
    assert tuner.report_experiment(told) == (True, True)
    assert tuner.next_experiment(ask()) is None
    assert (tuner.next_experiment(ask("live-2")) is None) == (server == "*")
    assert (tuner.next_task(WORKER) is None) == (server == "*")
    assert overview(tuner)["tuner"]["paused"] == [server]
    assert latest(tuner)["who"] == "ada" and "a test" in latest(tuner)["reason"]
    assert tuner.resume(ServerOrder(server=server, **ADA)).done
    assert not tuner.resume(ServerOrder(server=server, **ADA)).done
    assert tuner.next_experiment(ask()) is not None
    assert {"pause", "resume"} <= set(kinds(tuner))


def test_a_kill_takes_every_table_out_of_use_until_all_are_resumed(
    tmp_path: Path, clock: Clock
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    tuner = live_tuner(tmp_path, clock, database_url=url)
    LiveServer(tuner, split_gains).work()
    proven = entry_of(tuner)
    assert proven is not None and tuner.pin(PinOrder(**HERE)).done
    before = tuner.table(SCOPE)
    assert tuner.kill(Order(**ADA)).done
    assert latest(tuner)["kind"] == "kill" and overview(tuner)["totals"]["alerts"] == 1
    tuner.close()
    again = live_tuner(tmp_path, clock, database_url=url)
    assert again.table(SCOPE) is not None and entry_of(again) is None
    assert again.next_task(WORKER) is None and overview(again)["tuner"]["paused"] == ["*"]
    # Of one server nothing comes back.
    assert not again.resume(ServerOrder(server="live-1", **ADA)).done
    assert entry_of(again) is None
    assert again.resume(ServerOrder(**ADA)).done and again.table(SCOPE) == before
    again.close()
    last = live_tuner(tmp_path, clock, database_url=url)
    assert last.table(SCOPE) == before
    last.close()


def test_pauses_and_pins_outlive_the_tuner(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    tuner = live_tuner(tmp_path, clock, database_url=url)
    tuner.pause(ServerOrder(server="live-1", **ADA))
    tuner.pin(PinOrder(**HERE))
    tuner.close()
    tuner = live_tuner(tmp_path, clock, database_url=url)
    assert tuner.next_experiment(ask()) is None and tuner.next_experiment(ask("live-2")) is None
    tuner.resume(ServerOrder(**ADA))
    assert tuner.next_experiment(ask()) is None
    assert tuner.pin(PinOrder(pinned=False, **HERE)).done
    assert tuner.next_experiment(ask()) is not None
    tuner.close()


def test_nothing_is_measured_or_changed_in_a_pinned_bucket(tuner: Tuner, clock: Clock) -> None:
    server = LiveServer(tuner, split_gains)
    server.work()
    entry = entry_of(tuner)
    clock.now += tuner.settings.recheck_seconds
    running = tuner.next_experiment(ask())
    assert running is not None and entry is not None
    assert tuner.pin(PinOrder(**HERE)).done
    slow = LiveServer(tuner, lambda _config: -0.5).pairs(running, 10)
    assert not tuner.report_experiment(report(running, slow)).taken
    assert tuner.next_task(WORKER) is None and tuner.next_experiment(ask("live-2")) is None
    assert not tuner.roll_back(BucketOrder(**HERE)).done
    assert not tuner.promote(PromoteOrder(trial=1, **HERE)).done
    assert entry_of(tuner) == entry and bucket(tuner)["pinned"]
    assert not tuner.pin(PinOrder(pinned=False, **HERE | {"bucket": "d8@2k"})).done


def test_a_roll_back_by_hand_is_for_good(tuner: Tuner) -> None:
    assert not tuner.roll_back(BucketOrder(**HERE)).done
    server = LiveServer(tuner, split_gains)
    server.work()
    entry = entry_of(tuner)
    assert entry is not None and tuner.roll_back(BucketOrder(**HERE)).done
    assert entry_of(tuner) is None and latest(tuner)["who"] == "ada"
    server.work()
    new = entry_of(tuner)
    assert new is None or new.config != entry.config


def test_what_a_person_promotes_is_watched_and_rolled_back_when_it_is_slower(tuner: Tuner) -> None:
    number = slow_trial(tuner)
    assert tuner.promote(PromoteOrder(trial=number, **HERE)).done
    entry = entry_of(tuner)
    assert entry is not None and entry.evidence.method == "operator"
    assert entry.evidence.lower_bound < 1 and latest(tuner)["who"] == "ada"
    server = LiveServer(tuner, lambda _config: -0.1)
    watch = tuner.next_experiment(ask())
    assert watch is not None and watch.phase == "recheck:0"
    server.run(watch)
    assert entry_of(tuner) is None and server.steps <= 8


def test_a_promotion_by_hand_needs_steps_and_a_sound_config(tuner: Tuner) -> None:
    server = LiveServer(tuner, lambda _config: 0.0)
    for _ in range(3):
        experiment = tuner.next_experiment(ask())
        assert experiment is not None
        server.run(experiment)
    few = tuner.promote(PromoteOrder(trial=1, **HERE))
    assert few.done and "confirmed next" in few.text and entry_of(tuner) is None
    experiment = tuner.next_experiment(ask())
    assert experiment is not None and experiment.phase == "confirm:1:default"
    assert PodConfig.from_dict(experiment.candidate) != DEFAULT
    for trial, why in ((0, "default"), (99, "no trial"), (1, "steps")):
        answer = tuner.promote(PromoteOrder(trial=trial, **HERE))
        assert not answer.done and why in answer.text
    told = report(experiment, [], outcome="mismatch", reason="wrong")
    tuner.report_experiment(told)
    assert "failed" in tuner.promote(PromoteOrder(trial=1, **HERE)).text


@pytest.mark.parametrize("served", [TOKEN], indirect=True)
def test_orders_need_the_token_and_the_command_line_sends_them(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.tuner.ingest(message())
    monkeypatch.delenv("POD_TUNER_TOKEN", raising=False)
    monkeypatch.delenv("POD_ATTN_TUNER_TOKEN", raising=False)
    for path in ("pause", "kill", "resume", "promote", "pin", "rollback"):
        assert client.post(f"/v1/{path}", json=HERE).status_code == 401
    at = ["--url", served.url, "--who", "ada"]
    assert CliRunner().invoke(app, ["tuner", "pause", *at]).exit_code
    monkeypatch.setenv("POD_ATTN_TUNER_TOKEN", TOKEN)
    for arguments, said in (
        (["pause", "live-1"], "paused"), (["resume"], "resumed"), (["pin", BUCKET], "pinned"),
        (["unpin", BUCKET], "tuned again"), (["kill"], "without entries"),
    ):  # fmt: skip
        result = CliRunner().invoke(app, ["tuner", *arguments, *at])
        assert result.exit_code == 0 and said in result.output, result.output
    for arguments in (["rollback", BUCKET], ["promote", BUCKET, "3"], ["pin", "d8@2k"]):
        assert CliRunner().invoke(app, ["tuner", *arguments, *at]).exit_code
    assert [d["kind"] for d in overview(served.tuner)["decisions"]] == [
        "kill", "unpin", "pin", "resume", "pause",
    ]  # fmt: skip
