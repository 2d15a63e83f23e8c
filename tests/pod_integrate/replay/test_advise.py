"""Advice: steps are timed as its model says, and the sentence follows from the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pod_integrate.cli import app as cli
from pod_integrate.cli.advise import advice, rate
from pod_integrate.errors import PodAttentionError, SettingsError
from pod_integrate.model.dense import LLAMA_3_8B, STEP_US, DenseModel
from pod_integrate.model.devices import find_device
from pod_integrate.replay import advise
from pod_integrate.replay.advise import MIXED, POD, UNMIXED, Question, Setting
from pod_integrate.replay.requests import Request
from pod_integrate.replay.serving import Rules, Step

H100 = find_device("h100")
REQUESTS = [Request(0.0, 3000 + 100 * i, 20 + 13 * i % 50) for i in range(16)]


SMOLLM2 = {
    "num_hidden_layers": 2, "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152,
    "num_attention_heads": 9, "num_key_value_heads": 3,
}  # fmt: skip


def question(**rules: Any) -> Question:
    model = LLAMA_3_8B._replace(layers=4)
    return Question(model, model.geometry(), H100, Rules(max_running=6, **rules), 16)


@pytest.fixture(scope="module")
def settings() -> dict[str, Setting]:
    found = advise.advise(question(), lambda: REQUESTS, [512])
    return {setting.name: setting for setting in found}


def test_mixing_keeps_long_prompts_from_stalling_running_requests(
    settings: dict[str, Setting],
) -> None:
    assert settings[UNMIXED].hybrid_share == 0.0 < settings[MIXED].hybrid_share
    mixed, unmixed = settings[MIXED].itl_ms, settings[UNMIXED].itl_ms
    assert mixed is not None and unmixed is not None and mixed[1] < unmixed[1]


def test_one_launch_gains_in_hybrid_steps_and_changes_nothing_else(
    settings: dict[str, Setting],
) -> None:
    assert settings[POD].tokens_per_s > settings[MIXED].tokens_per_s
    assert settings[POD].attention_share < settings[MIXED].attention_share
    steps = [(1.0, Step([1] * 8, [4096] * 8))]
    assert advise.gain(question(), steps) == pytest.approx(1.0, abs=0.01)
    assert advise.gain(question(), []) == 1.0


def test_time_between_tokens_counts_steps_that_gave_none() -> None:
    timed = advise._Timed(
        rest=[1000.0] * 6, attention=[0.0] * 6, decodes=[2, 0, 0, 2, 2, 2], hybrid=[False] * 6
    )
    found = advise._setting(UNMIXED, 512, timed, np.zeros(6))
    assert found.itl_ms == (1.0, 3.0)
    assert found.tokens_per_s == pytest.approx(8 / 6e-3)


def test_stock_attention_is_that_of_a_stock_server(settings: dict[str, Setting]) -> None:
    """Decodes beside a prefill are slower there, so hybrid steps take more of the time."""
    timed = advise._timed(question(), Rules(chunk=512, max_running=6), REQUESTS, {})
    hybrid = np.asarray(timed.hybrid)
    assert hybrid.any() and not hybrid.all()
    assert (np.asarray(timed.stock)[hybrid] > np.asarray(timed.attention)[hybrid]).mean() > 0.5
    stock = advise._setting(MIXED, 512, timed, np.asarray(timed.stock))
    assert settings[MIXED] == stock


def test_every_prompt_gives_a_token_and_all_settings_answer_the_same() -> None:
    ones = [Request(0.0, 700, 1)] * 4
    found = advise.advise(question(), lambda: ones, [512])
    assert all(s.tokens_per_s > 0 for s in found)


def test_speedup_is_of_attention_in_hybrid_steps() -> None:
    timed = advise._Timed(
        rest=[100.0, 100.0], attention=[300.0, 300.0], decodes=[1, 1], hybrid=[True, False]
    )
    found = advise._setting(POD, 512, timed, advise._ours(timed, 1.5))
    assert found.attention_share == pytest.approx(500 / 700)
    assert found.hybrid_share == pytest.approx(300 / 700)


def test_a_step_reads_all_weights_until_products_take_longer() -> None:
    model = LLAMA_3_8B
    one, many = (model.step_us(n, 1, H100) - STEP_US for n in (1, 4096))
    weights = 32 * model.layer_weights + model.head_weights
    assert weights == pytest.approx(7.5e9, rel=0.01)
    assert one == pytest.approx(2 * weights / (H100.dram_bytes * 0.9) * 1e6, rel=0.02)
    assert many == pytest.approx(2 * 4096 * 32 * model.layer_weights / 0.7 / 989e12 * 1e6, rel=0.1)
    assert model._replace(tp=8).layer_weights == pytest.approx(model.layer_weights / 8)


def test_config_json_is_read_and_what_is_not_dense_refused() -> None:
    config = SMOLLM2
    model = DenseModel.of_config({"text_config": config})
    assert (model.q_heads, model.kv_heads, model.head_dim) == (9, 3, 64)
    assert str(model.geometry()) == "q9kv3d64-bf16-kvbf16-s1-w-1-c0"
    with pytest.raises(SettingsError, match="does not divide"):
        DenseModel.of_config(config, tp=4)
    with pytest.raises(PodAttentionError):
        DenseModel.of_config(config | {"num_key_value_heads": 2})
    assert DenseModel.of_config(config | {"num_local_experts": 1, "sliding_window": None}) == model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_experts": 8}, "num_experts = 8"),
        ({"n_routed_experts": 64}, "n_routed_experts = 64"),
        ({"kv_lora_rank": 512}, "MLA"),
        ({"quantization_config": {"quant_method": "fp8"}}, "16 bits"),
        ({"sliding_window": 4096}, "sliding_window = 4096"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"vocab_size": None}, "needs vocab_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.7}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**300}, "num_hidden_layers"),
        ({"hidden_size": float("inf")}, "hidden_size"),
        ({"text_config": None}, "text_config"),
        ({"text_config": []}, "text_config"),
    ],
)
def test_what_the_model_would_be_wrong_of_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        DenseModel.of_config(SMOLLM2 | change)


def setting(name: str, rate: float, p99: float = 10.0, chunk: int = 512) -> Setting:
    return Setting(name, chunk, rate, (1.0, p99), 0.5, 0.5)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_chunk_of_one_token_is_no_answer(mixed: bool) -> None:
    tails = [Request(0.0, 513, 4)] * 8
    asked = question(mixed=mixed, chunk=512)
    timed = advise._timed(asked, asked.rules, tails, {})
    assert sum(timed.decodes) + timed.prompts == 8 * 4


def test_best_is_the_quickest_that_keeps_the_target() -> None:
    some = [setting(MIXED, 100, 9), setting(UNMIXED, 200, 30), setting(POD, 110, 12)]
    assert advise.best(some, None) == some[1]
    assert advise.best(some, 12) == some[2]
    assert advise.best(some, 1) is None


def test_the_sentence_names_flags_and_the_gain_or_that_there_is_none() -> None:
    plain = setting(UNMIXED, 100)
    gained = advice(setting(POD, 130), plain, None)
    assert "--enable-mixed-chunk --chunked-prefill-size 512 --attention-backend pod" in gained
    assert "1.30x" in gained
    assert "without mixed chunks" in advice(setting(POD, 101), plain, None)
    assert "pod" not in advice(setting(MIXED, 130), plain, None)
    assert "no chunk size keeps" in advice(setting(POD, 130), None, 20.0)
    assert "20 ms" in advice(None, None, 20.0)


def test_where_mixing_gains_nothing_but_tokens_come_steadily_that_is_said() -> None:
    plain = Setting(UNMIXED, 8192, 100.0, (10.0, 400.0), 0.0, 0.3)
    steady = Setting(POD, 512, 99.0, (10.0, 30.0), 0.5, 0.3)
    slow = Setting(MIXED, 512, 90.0, (10.0, 20.0), 0.5, 0.3)
    said = advice(plain, plain, None, [plain, steady, slow])
    assert "where ITL matters, --enable-mixed-chunk --chunked-prefill-size 512" in said
    assert "--attention-backend pod: 99 tokens/s, ITL p99 30.0 ms" in said
    assert "ITL matters" not in advice(plain, plain, None, [plain, slow])
    near = steady._replace(itl_ms=(10.0, 350.0))
    assert "ITL matters" not in advice(plain, plain, None, [plain, near])


def test_the_command_prints_settings_and_advice(tmp_path: Path) -> None:
    arguments = ["advise", log_of(tmp_path), "--chunks", "512", "--requests", "8", "--json"]
    found = CliRunner().invoke(cli.app, arguments)
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert [s["name"] for s in document["settings"]] == [UNMIXED, MIXED, POD]
    assert "tokens/s" in document["advice"]


def log_of(folder: Path) -> str:
    log = folder / "log.csv"
    rows = [f"{r.prompt_tokens},{r.answer_tokens}" for r in REQUESTS]
    log.write_text("\n".join(["num_prefill_tokens,num_decode_tokens", *rows]))
    return str(log)


def test_a_cache_of_8_bits_is_read_sooner_by_pod(tmp_path: Path) -> None:
    arguments = ["advise", log_of(tmp_path), "--chunks", "512", "--requests", "8", "--json"]
    rates = {}
    for name in ("auto", "fp8_e4m3"):
        found = CliRunner().invoke(cli.app, [*arguments, "--kv-cache-dtype", name])
        document = json.loads(found.stdout)
        assert document["geometry"].endswith(f"kv{'e4m3' if 'e4m3' in name else 'bf16'}-s1-w-1-c0")
        rates[name] = {s["name"]: s["tokens_per_s"] for s in document["settings"]}
    assert rates["fp8_e4m3"][POD] > 1.01 * rates["auto"][POD]


def test_a_cache_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    arguments = ["advise", log_of(tmp_path), "--kv-cache-dtype", "fp8_e5m2"]
    found = CliRunner().invoke(cli.app, arguments)
    assert isinstance(found.exception, SettingsError)
    assert "auto, bfloat16, fp8_e4m3" in str(found.exception)


def test_few_tokens_per_second_have_three_digits() -> None:
    assert [rate(n) for n in (2.345, 34.56, 345.6)] == ["2.35", "34.6", "346"]


def test_a_budget_that_no_request_fits_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("num_prefill_tokens,num_decode_tokens\n900,9\n")
    found = CliRunner().invoke(cli.app, ["advise", str(log), "--budget", "100"])
    assert isinstance(found.exception, SettingsError)
    assert "--budget 100" in str(found.exception)


def test_recorded_steps_have_the_chunks_that_they_have(tmp_path: Path) -> None:
    archive = tmp_path / "steps.parquet"
    archive.write_bytes(b"PAR1....")
    found = CliRunner().invoke(cli.app, ["advise", str(archive)])
    assert isinstance(found.exception, SettingsError)
    assert "pod-attn replay --dry" in str(found.exception)


@pytest.mark.parametrize(
    "chunks", ["512,8", "9" * 5000, "x", "", "512,,1024", ",".join(["512"] * 13)]
)
def test_chunk_sizes_that_are_none_are_refused(tmp_path: Path, chunks: str) -> None:
    found = CliRunner().invoke(cli.app, ["advise", str(tmp_path), "--chunks", chunks])
    assert isinstance(found.exception, SettingsError)
    assert "--chunks must be" in str(found.exception)
