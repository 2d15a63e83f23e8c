"""Real servers in every parallel layout that is served answer as one stock server does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import Reference, stock_server
from support.waiting import until

from benchmarks.engines.sglang_server import VARIANTS, sglang_server, wait_ready
from benchmarks.engines.sink import TraceSink
from pod_integrate.demo.llama import make_demo_model

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]

# Replicas that trace, and the layers of each: of ranks that share a step the first speaks for all.
PARALLEL = {"pp2": (1, 2), "dp2": (2, 4)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("model") / "llama", layers=4)


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with stock_server(model, tmp_path_factory.mktemp("servers")) as reference:
        yield reference


@pytest.mark.parametrize("names", [("page16_no_radix", "tp2"), ("pp2", "dp2")])
def test_variants_answer_as_stock(
    reference: Reference, model: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    with contextlib.ExitStack() as stack:
        servers, sinks = [], {}
        for name in names:
            sinks[name] = stack.enter_context(TraceSink())
            env = {"POD_ATTN_TUNER_URL": sinks[name].url, "POD_ATTN_TRACE_SAMPLE": "1"}
            starting = sglang_server(model, VARIANTS[name], log=tmp_path / name, env=env)
            servers.append(stack.enter_context(starting))
        wait_ready(*servers)
        for server in servers:
            reference.check(server)
        for name in PARALLEL.keys() & names:
            check_traces(sinks[name], *PARALLEL[name])


def check_traces(sink: TraceSink, replicas: int, layers: int) -> None:
    def servers() -> set[str]:
        return {message.server for message in list(sink.messages) if message.records}

    until(lambda: len(servers()) == replicas, 60.0, f"traces of {replicas} replicas")
    assert sink.bad == []
    assert {record.layers for record in sink.records()} == {layers}
    assert len({server.split("/")[1] for server in servers()}) == replicas
