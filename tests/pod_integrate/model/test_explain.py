"""pod-attn explain: what it prints, labels and refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pod_integrate.cli.app import app
from pod_integrate.errors import ConfigError, PodAttentionError, ShapeError
from pod_integrate.model.engine import SimulatedCta
from pod_integrate.model.picture import timeline
from pod_integrate.model.published import POD_2

BATCH = "p512@4k+d16@4k"


def explain(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["explain", *arguments], env={"COLUMNS": "120"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_text_shows_every_part_and_says_that_it_is_a_model() -> None:
    text = explain(BATCH, "--compare")
    for word in ("GFLOP", "floors", "prefill items", "waves", "fused", "serial", "streams"):
        assert word in text, word
    for device in ("A100", "H100", "H200"):
        assert device in text
    assert text.count("model, not a measurement") >= 5
    assert "PPP" in text and "DDD" in text


def test_json_answers_the_same_question() -> None:
    document = json.loads(explain(BATCH, json.dumps(POD_2.to_dict()), "--json", "--device", "h100"))
    assert document["label"] == "model, not a measurement"
    assert document["config"] == POD_2.to_dict() and document["infeasible"] is None
    assert document["requests"] == 17 and document["query_tokens"] == 528
    assert set(document["simulated"]) == {"fused", "serial", "streams"}
    assert document["simulated"]["fused"]["us"] >= document["floors"]["h100"]["ideal"]["fused_us"]


def test_plan_of_a_small_batch_shows_the_shorter_items_that_fill_the_gpu() -> None:
    plan = json.loads(explain("d1@8k", "--json", "--device", "h100"))["plan"]
    assert (plan["decode_items"], plan["decode_item_keys"]) == (256, 256)
    assert plan["split_items"] == 256 and plan["merge_blocks"] == 8
    full = json.loads(explain("d32@2k", "--json", "--device", "h100"))["plan"]
    assert (full["decode_items"], full["decode_item_keys"], full["split_items"]) == (256, 2048, 0)
    assert "decode items of up to 256 keys; 256 items hold part" in explain(
        "d1@8k", "--device", "h100"
    )
    assert json.loads(explain("p512@4k", "--json"))["plan"]["decode_item_keys"] == 0


def test_lists_say_the_same_as_the_text_form() -> None:
    lists = explain("--q-lens", "512,1,1", "--kv-lens", "4096,300,300", "--json")
    assert json.loads(lists) == json.loads(explain("p512@4k+d2@300", "--json"))


def test_config_that_does_not_fit_is_named_and_simulated_all_the_same() -> None:
    config = POD_2.to_dict() | {"ctas_per_sm": 8}
    document = json.loads(explain(BATCH, json.dumps(config), "--json"))
    assert "ctas_per_sm" in document["infeasible"] or "Lower" in document["infeasible"]
    assert document["simulated"]["fused"]["us"] > 0


def test_comparison_is_sorted_and_names_what_was_asked() -> None:
    rows = json.loads(explain(BATCH, "--compare", "--json"))["compare"]
    assert [row["us"] for row in rows] == sorted(row["us"] for row in rows)
    assert sum(row["same_as_asked"] for row in rows) == 1
    assert len({row["config"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], ShapeError),
        (["p1@1", "--q-lens", "1"], ShapeError),
        (["--q-lens", "1,x", "--kv-lens", "1,2"], ShapeError),
        (["--q-lens", "1", "--kv-lens", "99999999999"], ShapeError),
        ([BATCH, "no-such-file.json"], ConfigError),
        ([BATCH, "{broken"], ConfigError),
        ([BATCH, "--device", "v100"], ConfigError),
        ([BATCH, "--geometry", "q8"], ShapeError),
        (["--q-lens", "9" * 5000, "--kv-lens", "1"], ShapeError),
        ([f"p{'9' * 5000}@8k"], ShapeError),
        ([BATCH, '{"a":' * 20_000], ConfigError),
    ],
    ids=lambda value: str(value)[:80],
)
def test_mistakes_raise_from_the_one_tree(
    arguments: list[str], error: type[PodAttentionError]
) -> None:
    with pytest.raises(error):
        explain(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["d4000000@1k"],
        ["p2147483647@2147483647"],
        ["+".join(["p4k@4k"] * 500)],
        ["d8192@1k", "--geometry", "q4096kv4096d128-bf16-kvbf16-s16-w-1-c0"],
        ["d64@1k", json.dumps(POD_2.to_dict() | {"decode_split_tokens": 16}), "--geometry",
         "q4096kv4096d128-bf16-kvbf16-s16-w-1-c0"],
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_batch_that_would_take_hours_or_all_memory_is_refused_before_it_is_planned(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("it was planned")

    monkeypatch.setattr("pod_integrate.model.explain.simulate", reached)
    with pytest.raises(ShapeError, match=r"ask\s+about fewer"):
        explain(*arguments)


def test_keys_behind_a_window_are_no_work() -> None:
    # Of a million keys each request sees 1,024.
    geometry = "q8kv8d128-bf16-kvbf16-s16-w1023-c0"
    plan = json.loads(explain("d64@1024k", "--geometry", geometry, "--json"))["plan"]
    assert plan["decode_items"] == 512


def test_picture_alternates_case_where_a_cta_ends() -> None:
    records = [
        SimulatedCta(0, 0, "prefill", 0.0, 0.5),
        SimulatedCta(0, 0, "prefill", 0.5, 1.0),
        SimulatedCta(0, 1, "decode", 0.0, 0.25),
        SimulatedCta(1, 0, "decode", 0.0, 1.0),
    ]
    assert timeline(records, 0, 1.0, width=8) == ["PPPPpppp", "DD......"]
