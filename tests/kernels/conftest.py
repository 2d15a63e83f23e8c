"""Deep tests run when they are asked for (`make kernels-deep`, or pytest -m deep); the
conformance kernel, built and run once a file."""

from __future__ import annotations

import pytest
from support.conformance import CPU, SMS, Sections

from benchmarks.gpu.correctness import conformance_build
from benchmarks.gpu.correctness.conformance_run import Inputs, Library, make_inputs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "deep" in config.getoption("markexpr"):
        return
    deep = [item for item in items if item.get_closest_marker("deep")]
    if deep:
        config.hook.pytest_deselected(items=deep)
        items[:] = [item for item in items if item not in deep]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(conformance_build.build_emulator())


@pytest.fixture(scope="module")
def inputs(library: Library) -> Inputs:
    return make_inputs(library.layout, seed=3)


@pytest.fixture(scope="module")
def dumped(library: Library, inputs: Inputs) -> Sections:
    library.configure_emulator(num_sms=SMS, order=0, copies=0, seed=1)
    return library.run(inputs, CPU)
