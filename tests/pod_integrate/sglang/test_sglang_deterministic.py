"""Deterministic inference: a request's rows are the same bits alone and in any batch."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

HEADS, KV_HEADS, DIM, CONTEXT = 4, 2, 32, 2100
# Requests by row of the table: query tokens and keys, long enough to be split by default.
REQUESTS = {1: (300, 1500), 2: (1, 2000), 3: (1, 900), 4: (40, 1500), 5: (1, 1)}
BATCHES = ([1, 2, 3, 4, 5], [4, 1, 3], [5, 2], [2, 3])


class MHATokenToKVPool:
    """SGLang's plain pool, as far as a backend that only reads needs it."""

    def __init__(self, slots: int) -> None:
        self.keys, self.values = torch.randn(2, slots, KV_HEADS, DIM).unbind()

    def get_key_buffer(self, layer_id: int) -> torch.Tensor:
        return self.keys

    def get_value_buffer(self, layer_id: int) -> torch.Tensor:
        return self.values


@pytest.fixture
def runner() -> SimpleNamespace:
    torch.manual_seed(0)
    rows = len(REQUESTS) + 1
    table = torch.randperm(rows * CONTEXT).view(rows, CONTEXT).to(torch.int32)
    return SimpleNamespace(
        device="cpu",
        dtype=torch.float32,
        kv_cache_dtype=torch.float32,
        use_mla_backend=False,
        spec_algorithm=SimpleNamespace(is_speculative=lambda: False),
        model_config=SimpleNamespace(is_encoder_decoder=False),
        server_args=SimpleNamespace(
            port=1, enable_deterministic_inference=True, chunked_prefill_size=-1
        ),
        req_to_token_pool=SimpleNamespace(req_to_token=table),
        token_to_kv_pool=MHATokenToKVPool(rows * CONTEXT),
        model=torch.nn.Module(),
    )


pytestmark = pytest.mark.usefixtures("kit")

LAYER = SimpleNamespace(
    layer_id=0,
    attn_type="decoder",
    is_cross_attention=False,
    tp_q_head_num=HEADS,
    tp_k_head_num=KV_HEADS,
    qk_head_dim=DIM,
    v_head_dim=DIM,
    scaling=DIM**-0.5,
    sliding_window_size=-1,
    logit_cap=0.0,
    use_irope=False,
    xai_temperature_len=-1,
    logit_capping_method="tanh",
    pos_encoding_mode="NONE",
)


def attend(backend: Any, q: dict[int, torch.Tensor], rows: list[int]) -> dict[int, torch.Tensor]:
    """Each request's rows of one step that attends the requests of `rows`, in this order."""
    lens = [REQUESTS[row][0] for row in rows]
    decode = all(n == 1 for n in lens)
    batch = SimpleNamespace(
        forward_mode=SimpleNamespace(
            is_decode=lambda: decode, is_idle=lambda: False, is_target_verify=lambda: False
        ),
        seq_lens_cpu=torch.tensor([REQUESTS[row][1] for row in rows]),
        extend_seq_lens_cpu=None if decode else lens,
        req_pool_indices=torch.tensor(rows),
        rids=["live"],
    )
    backend.init_forward_metadata(batch)
    queries = torch.cat([q[row] for row in rows])
    attend_step = backend.forward_decode if decode else backend.forward_extend
    out = attend_step(queries, None, None, LAYER, batch, save_kv_cache=False)
    return dict(zip(rows, out.split(lens), strict=True))


def test_rows_of_a_request_are_the_same_bits_alone_and_in_any_batch(
    runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    backend = PodAttnBackend(runner)
    q = {row: torch.randn(n, HEADS * DIM) for row, (n, _) in REQUESTS.items()}
    alone = {row: attend(backend, q, [row])[row] for row in REQUESTS}
    for threads, rows in zip("1223", BATCHES, strict=True):
        monkeypatch.setenv("POD_ATTN_THREADS", threads)
        for row, got in attend(backend, q, rows).items():
            assert torch.equal(got, alone[row]), f"request {row} in {rows}"


def test_every_step_runs_one_config_and_tables_are_off(
    runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    # Nobody listens there, and nobody is asked.
    monkeypatch.setenv("POD_ATTN_TUNER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("POD_ATTN_TABLE", "/nowhere/table.json")
    with caplog.at_level(logging.WARNING):
        backend = PodAttnBackend(runner)
    assert "POD_ATTN_TUNER_URL and POD_ATTN_TABLE are not used" in caplog.text
    assert not backend._groups.records and backend._groups._exchange is None
    group = backend._group(LAYER)
    # What a table would do is not looked at.
    monkeypatch.setattr(group, "active", None)
    config = group.plan(SimpleNamespace(), live=True).config  # type: ignore[arg-type]
    assert config == group.default == config.batch_invariant()
    assert config.decode_split_tokens == 0
