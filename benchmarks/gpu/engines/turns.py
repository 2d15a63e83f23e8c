"""Two engines on one device that answer the same load in turns: A B, B A, A B, ...

What a setting costs is a percent or less, and two runs of one engine differ by more: clocks, and
what else the machine does, drift. Two engines stand side by side, one idle while the other answers,
so each pass has a neighbour in time to be compared with.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.gpu.engines.figures import rates
from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.scores import Scored
from benchmarks.gpu.engines.sglang import Worker

_POLL_SECONDS = 0.02
# SGLang draws the ports of an engine's processes from the thousand after its own.
FIRST_PORT, PORTS = 31_000, 2_000
_RESAMPLED = 2000
_LEAVE_SECONDS = 10.0


class Standing(Worker):
    """A worker whose engine stays up between passes."""

    def __init__(
        self, run: Run, folder: Path, out: Path, *,
        module: str = "turns_run", environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(run, folder, out, module=module, environment=environment)
        self._answer = folder / "answer.json"
        self._reads_orders = False

    def begin(self, job: dict[str, Any]) -> None:
        """Give the worker its job; `ready` waits until the engine has warmed up."""
        path = self._folder / "job.json"
        path.write_text(json.dumps(job))
        self._say(f"{path}\t{self._answer}")

    def ready(self, limit: float) -> dict[str, Any]:
        """Wait for the warm engine; RuntimeError, with the log's end, after `limit` seconds."""
        found = self._wait(limit)
        self._reads_orders = True
        return found

    def once(self, limit: float) -> float:
        """Seconds of one pass over the job's requests; RuntimeError after `limit` seconds."""
        return float(self.order("pass", limit)["seconds"])

    def order(self, line: str, limit: float) -> dict[str, Any]:
        """What the worker answers to a line; RuntimeError after `limit` seconds."""
        self._say(line)
        return self._wait(limit)

    def answers(self, limit: float, *, parts: int = 1) -> list[list[int]]:
        """Tokens of the job's `questions`; RuntimeError after `limit` seconds.

        parts  as many groups of questions, one after the other: the same ones in other batches
        """
        tokens: list[list[int]] = self.order(f"answers {parts}", limit)["tokens"]
        return tokens

    def scores(self, limit: float, *, parts: int = 1) -> list[Scored]:
        """As `answers`, with log-probabilities."""
        return [Scored(*one) for one in self.order(f"scores {parts}", limit)["scores"]]

    def leave(self) -> None:
        """Tell it that no order follows: it ends its engine, and then itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def stop(self) -> None:
        """End the process: SGLang's does nothing about SIGTERM while it reads orders."""
        self.leave()
        if self._reads_orders:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_SECONDS)
        super().stop()

    def _say(self, line: str) -> None:
        self._answer.unlink(missing_ok=True)
        assert self._process.stdin is not None
        # A worker that has died is told by `_wait`, with the end of its log.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _wait(self, limit: float) -> dict[str, Any]:
        until = time.monotonic() + limit
        while not self._answer.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise self.failure(limit)
            time.sleep(_POLL_SECONDS)
        found: dict[str, Any] = json.loads(self._answer.read_text())
        return found


@contextlib.contextmanager
def standing(
    run: Run,
    job: dict[str, Any],
    environments: Mapping[str, Mapping[str, str]],
    folders: tuple[Path, Path],
    *,
    limit: float,
    engines: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Iterator[dict[str, Standing]]:
    """Warm engines by the names of their `environments`, ended afterwards; see side_by_side.

    engines  arguments of sglang.Engine, by name, in place of the job's
    """
    workers: dict[str, Standing] = {}
    try:
        for place, (name, environment) in enumerate(environments.items()):
            own = [folder / name for folder in folders]
            for folder in own:
                folder.mkdir(parents=True, exist_ok=True)
            workers[name] = Standing(run, own[0], own[1], environment=environment)
            port = FIRST_PORT + place * PORTS
            told = job["engine"] | {"port": port} | dict(engines.get(name, {}))
            workers[name].begin(job | {"engine": told})
        until = time.monotonic() + limit
        for worker in workers.values():
            worker.ready(max(0.0, until - time.monotonic()))
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


def side_by_side(
    run: Run,
    job: dict[str, Any],
    environments: Mapping[str, Mapping[str, str]],
    folders: tuple[Path, Path],
    *,
    passes: int,
    limit: float,
    each: Callable[[str, dict[str, float]], None],
) -> None:
    """`passes` of every engine, in turns; each(name, rates of the pass) as they come.

    environments  variables of each engine, by its name; all get the same job
    folders       one for files that nobody keeps, one for logs
    limit         seconds for all engines to come up, and for one pass
    RuntimeError, with the end of a log, when an engine fails or is late.
    """
    with standing(run, job, environments, folders, limit=limit) as workers:
        for number in range(passes):
            for name in order(list(workers), number):
                each(name, rates(job["requests"], workers[name].once(limit)))


def order(names: Sequence[str], number: int) -> list[str]:
    """Whose turn it is in a round: forwards in even ones, backwards in odd ones."""
    return list(names) if number % 2 == 0 else list(names)[::-1]


def paired_cost(off: Sequence[float], on: Sequence[float]) -> dict[str, Any]:
    """Share of a rate that `on` costs: 1 - the median ratio of neighbours in time.

    off, on  rates of the same rounds, of any unit; ValueError for none, or of different numbers.
    Returns cost, its 95 % interval (of medians of rounds drawn again), and the number of rounds.
    """
    ratios = [b / a for a, b in zip(off, on, strict=True)]
    if not ratios:
        raise ValueError("no round in which both engines answered")
    draw = random.Random(0)
    again = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLED)
    )
    ends = (again[math.floor(0.975 * _RESAMPLED)], again[math.floor(0.025 * _RESAMPLED)])
    return {
        "cost": 1.0 - statistics.median(ratios),
        "interval": [1.0 - end for end in ends],
        "rounds": len(ratios),
    }
