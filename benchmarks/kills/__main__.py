"""Rounds of SIGKILL of a tuner, its worker or a server, chosen at random, in the midst of work.

    python -m benchmarks.kills [--rounds N] [--seed S]

The tuner is `pod-attn tuner up --no-ray` with a real worker on the CPU kernel, over one SQLite
file; the server posts steps, polls tables and runs experiments as fast as it is answered. After
each restart everything that was acknowledged in any life must be there: messages, pairs of
experiments, tables that were handed out, decisions that were shown, and totals that never fall.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks._results import record_headline, write
from benchmarks.kills.ledger import Ledger
from pod_integrate.demo.ports import free_port

COMMAND = "pod-attn bench kills -- --rounds {}"
_READY_SECONDS = 120.0
_WORK_SECONDS = 0.3, 2.5
# The tuner has most to lose.
_KINDS = "tuner", "tuner", "worker", "server"


class Scene:
    """The three processes over one folder."""

    def __init__(self, folder: Path) -> None:
        self.url, self._folder = f"http://127.0.0.1:{free_port(8441)}", folder
        self.ledger = Ledger(folder / "journal", folder / "state" / "tuner.db")
        self._log, self._noted = (folder / "log").open("ab"), 0
        self._client = httpx.Client(base_url=self.url, timeout=10.0, trust_env=False)
        self._start_tuner()
        self.server = self._start_server()

    def _start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *words], stdout=self._log, stderr=self._log,
            stdin=subprocess.DEVNULL, env=os.environ | environment,
        )  # fmt: skip

    def _start_tuner(self) -> None:
        port = self.url.rpartition(":")[2]
        # Known before it is waited for, so that Ctrl-C leaves none behind.
        self.tuner = process = self._start(
            *("pod_integrate.cli", "tuner", "up", "--no-ray", "--workers", "1", "--port", port),
            *("--state-dir", str(self._folder / "state")),
            # Much to try, and what a killed server had is soon another's.
            POD_TUNER_TRIALS="1000", POD_TUNER_EXPERIMENT_SECONDS="5",
            POD_TUNER_SLICE_SECONDS="0.2", POD_TUNER_NICE="0",
            POD_TUNER_TOKEN="", POD_TUNER_DATABASE_URL="",
        )  # fmt: skip
        deadline = time.monotonic() + _READY_SECONDS
        while self.overview() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise SystemExit(f"the tuner did not start; see {self._folder / 'log'}")
            time.sleep(0.1)

    def _start_server(self) -> subprocess.Popen[bytes]:
        return self._start("benchmarks.kills.server", self.url, str(self._folder / "journal"))

    def overview(self) -> dict[str, Any] | None:
        """What the tuner says of itself, None while it is away."""
        try:
            answer = self._client.get("/v1/overview")
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def worker(self) -> int | None:
        """Process id of the measuring process."""
        listed = Path(f"/proc/{self.tuner.pid}/task").glob("*/children")
        for child in {pid for file in listed for pid in file.read_text().split()}:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        return None

    def await_work(self) -> None:
        """Until the server has had something acknowledged since the last kill, within reason."""
        deadline, before = time.monotonic() + _READY_SECONDS, self._noted
        while self.ledger.noted_bytes <= before and time.monotonic() < deadline:
            time.sleep(0.05)

    def kill(self, kind: str) -> bool:
        """One process, and start what nobody else starts; False where it was not there."""
        if kind == "worker":
            pid = self.worker()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            return pid is not None
        process = self.tuner if kind == "tuner" else self.server
        process.kill()
        process.wait()
        if kind == "server":
            self.server = self._start_server()
            return True
        self._start_tuner()
        return True

    def check(self) -> None:
        """Compare the database with what was acknowledged until now."""
        shown = self.overview()
        assert shown is not None
        self.ledger.check(shown)
        self._noted = self.ledger.noted_bytes

    def close(self) -> None:
        """End everything."""
        self.server.kill()
        self.server.wait()
        self.tuner.terminate()
        try:
            self.tuner.wait(30.0)
        except subprocess.TimeoutExpired:
            self.tuner.kill()
            self.tuner.wait()
        self._client.close()
        self._log.close()


def run(scene: Scene, rounds: int, pick: random.Random) -> Counter[str]:
    """Kill so many times; how often whom."""
    killed: Counter[str] = Counter()
    while sum(killed.values()) < rounds:
        scene.await_work()
        time.sleep(pick.uniform(*_WORK_SECONDS))
        shown = scene.overview()
        if shown is not None:
            scene.ledger.see(shown)
        kind = pick.choice(_KINDS)
        if scene.kill(kind):
            killed[kind] += 1
            scene.check()
            lost = sum(scene.ledger.lost.values())
            print(f"round {sum(killed.values())}: {kind}, {lost} lost", flush=True)
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pod-kills-") as folder:
        scene = Scene(Path(folder))
        try:
            killed = run(scene, chosen.rounds, random.Random(chosen.seed))
            shown = scene.overview() or {}
        finally:
            scene.close()
    ledger, totals = scene.ledger, shown.get("totals", {})
    lost = sum(ledger.lost.values())
    path = write("tuner_kills", {
        "rounds": chosen.rounds, "seed": chosen.seed, "killed": dict(killed),
        "acknowledged": dict(ledger.asked), "lost": dict(ledger.lost), "doubled": ledger.doubled,
        "pairs_of_barred_configs": ledger.barred,
        "promotions": totals.get("promotions"), "rollbacks": totals.get("rollbacks"),
    })  # fmt: skip
    command = COMMAND.format(chosen.rounds)
    record_headline("tuner.kill_rounds", chosen.rounds, "", command)
    record_headline("tuner.kill_lost", lost, "", command)
    print(path.read_text())


if __name__ == "__main__":
    main()
