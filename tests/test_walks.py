"""The walks of docs/architecture.md lead through functions that exist."""

from __future__ import annotations

import re

import pytest
from support.source_names import ROOT, defined

PAGE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = dict(re.findall(r"^### (\d\. .+)\n([^#]+)", PAGE, re.MULTILINE))
STOP = re.compile(r"`([\w./]+\.(?:py|js|cpp|cu|cuh|h)):([\w.]+)`")


def exists(path: str, name: str) -> bool:
    """Whether a file defines a name: exactly in Python, by its look elsewhere."""
    if path.endswith(".py"):
        return name in defined(path)
    text = (ROOT / path).read_text()
    return (
        re.search(rf"(?:\w[&*]? |::|[#*&]|^ +|class ){name}\b *[(<{{]", text, re.MULTILINE)
        is not None
    )


def test_there_are_the_four_walks() -> None:
    assert [title[0] for title in WALKS] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("title", sorted(WALKS))
def test_every_stop_of_a_walk_exists(title: str) -> None:
    stops = STOP.findall(WALKS[title])
    assert len(stops) >= 8
    assert [stop for stop in stops if not exists(*stop)] == []


def test_a_stop_that_does_not_exist_is_noticed() -> None:
    assert not exists("pod_integrate/op.py", "hybrid_attentions")
    assert not exists("tuner/core.py", "Tuner.swallow")
    assert not exists("tuner/page/live.js", "putJson")
    assert not exists("kernels/cuda/csrc/plan.cpp", "make_plans")
