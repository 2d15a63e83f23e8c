"""Facts for the start-up checks, read off SGLang's own objects."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pod_integrate.devices.registry import device_of


def test_start_up_decides_on_what_sglang_made_of_the_arguments(small: Any) -> None:
    # Newer SGLang leaves the attributes as the user typed them and keeps its decisions beside.
    from sglang.srt.arg_groups.overrides import resolved_view

    from pod_integrate.engines.sglang.facts import engine_facts

    args = SimpleNamespace(cuda_graph_config=None, chunked_prefill_size=None)
    decided = {
        "cuda_graph_config": SimpleNamespace(prefill=SimpleNamespace(backend="full")),
        "chunked_prefill_size": 4096,
    }
    args._resolved_overrides = [("test", decided)]
    assert resolved_view(args).chunked_prefill_size == 4096
    small.runner.server_args = args
    facts = engine_facts(small.runner, device_of(torch.device("cpu")))
    assert (facts.prefill_graph, facts.chunked_prefill_size) == ("full", 4096)


def test_sizes_of_pool_and_table_are_those_of_the_runner(small: Any) -> None:
    from pod_integrate.engines.sglang.facts import engine_facts

    facts, runner = engine_facts(small.runner, device_of(torch.device("cpu"))), small.runner
    table, keys = runner.req_to_token_pool.req_to_token, runner.token_to_kv_pool.get_key_buffer(0)
    assert (facts.table_rows, facts.table_columns) == tuple(table.shape)
    assert (facts.pool_slots, facts.pool_bytes) == (keys.shape[0], keys.numel() * 4)


@pytest.mark.parametrize("images", [True, False])
def test_a_model_that_masks_images_is_told_where_it_takes_them(small: Any, images: bool) -> None:
    from sglang.srt.models.gemma3_mm import Gemma3ForConditionalGeneration

    from pod_integrate.engines.sglang.facts import engine_facts

    device = device_of(torch.device("cpu"))
    small.runner.model_config.is_multimodal = images
    assert not engine_facts(small.runner, device).masked_images
    small.runner.model = Gemma3ForConditionalGeneration.__new__(Gemma3ForConditionalGeneration)
    torch.nn.Module.__init__(small.runner.model)
    assert engine_facts(small.runner, device).masked_images == images


def test_every_model_that_asks_for_triton_makes_its_masks_where_start_up_looks() -> None:
    found = importlib.util.find_spec("sglang")
    assert found is not None and found.origin is not None
    sources = {
        path.name: path.read_text()
        for path in (Path(found.origin).parent / "srt" / "models").rglob("*.py")
    }
    asking = {name for name, text in sources.items() if "TritonAttnBackend)" in text}
    assert "gemma3_mm.py" in asking
    assert {name for name in asking if "    def prepare_attn_masks(" not in sources[name]} == set()


@pytest.mark.parametrize(("ranks", "shown"), [((1, 0), "/dp1/"), ((None, 2), "/dp2/")])
def test_replicas_go_by_their_own_number(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, ranks: Any, shown: str
) -> None:
    from sglang.srt import runtime_context

    from pod_integrate.engines.sglang.facts import server_name

    parallel = SimpleNamespace(dp_rank=ranks[0], attn_dp_rank=ranks[1])
    monkeypatch.setattr(runtime_context, "get_parallel", lambda: parallel)
    runner = SimpleNamespace(server_args=SimpleNamespace(port=1))
    assert shown in server_name(runner)
