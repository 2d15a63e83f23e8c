"""Compiling beside a server: several at a time, and nobody waits for it."""

from __future__ import annotations

import os
import threading

import pytest
from support.laboratory import DEFAULT, OTHER, Host, make_batch, offer

from pod_integrate.errors import BuildError
from pod_integrate.live import builds
from pod_integrate.live.builds import Builds
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket


class Compiler:
    """Works until it is let go; `began` is set by the first that does."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.over = threading.Event()
        self.seen: list[PodConfig] = []
        self.error: Exception | None = None

    def build(self, config: PodConfig) -> None:
        if config == DEFAULT:
            return
        self.seen.append(config)
        self.began.set()
        assert self.go.wait(20.0)
        if self.error is not None:
            raise self.error


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    monkeypatch.setattr(builds, "_FIND_SECONDS", 0.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return Compiler()


def configs(*splits: int) -> list[PodConfig]:
    return [PodConfig.from_dict(DEFAULT.to_dict() | {"decode_split_tokens": n}) for n in splits]


def test_a_quarter_of_the_cores_compile_at_a_time(compiler: Compiler) -> None:
    found = Builds(compiler.build, compiler.over.set)
    wanted = configs(64, 128, 256)
    assert not any(found.is_built(config) for config in wanted)
    assert compiler.began.wait(20.0)
    compiler.go.set()
    found.wait(wanted[0])
    found.wait(wanted[1])
    assert sorted(c.decode_split_tokens for c in compiler.seen) == [64, 128]
    found.wait(wanted[2])
    assert compiler.seen[-1] == wanted[2] and compiler.over.is_set()


def test_an_error_is_raised_once_and_then_tried_again(compiler: Compiler) -> None:
    compiler.go.set()
    compiler.error = BuildError("no compiler")
    found = Builds(compiler.build, compiler.over.set)
    for _ in range(2):
        with pytest.raises(BuildError, match="no compiler"):
            found.wait(OTHER)
    compiler.error = None
    found.wait(OTHER)
    assert compiler.seen == [OTHER] * 3


def test_other_experiments_begin_while_one_compiles(compiler: Compiler) -> None:
    host = Host()
    lengths = [1] * 8, [64] * 8
    other = str(Bucket.of(*lengths))
    assert host.group.experiments is not None
    host.group.readiness.builds = Builds(compiler.build, compiler.over.set)
    host.group.experiments.see(Bucket.of(*lengths), lengths)
    host.steps(3)
    host.tuner.offers = [offer("e1"), offer("e2", DEFAULT, bucket=other)]
    host.rounds(2)
    # The default is ready: only the other one waits for its compiler.
    assert list(host.group.experiments.running) == [Bucket.of(*lengths)]
    compiler.go.set()
    assert compiler.over.wait(20.0)
    host.rounds()
    assert set(host.group.experiments.running) == {Bucket.of(*lengths), make_batch().bucket}


def test_a_process_that_gives_way_already_compiles_too(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError(f"nice {priority} from 15")

    monkeypatch.setattr(os, "getpriority", lambda which, who: 15)
    monkeypatch.setattr(os, "setpriority", refuse)
    compiler.go.set()
    found = Builds(compiler.build, compiler.over.set)
    found.wait(OTHER)
    assert compiler.seen == [OTHER]
    # Whatever else fails in the thread is raised where somebody waits, and never waited for.
    monkeypatch.setattr(os, "getpriority", lambda which, who: 0)
    with pytest.raises(PermissionError):
        found.wait(DEFAULT)
