"""docs/compatibility.toml says what the code does: proofs exist, refusals are raised."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import json
from typing import Any

import pytest
import torch
from support.source_names import ROOT

from benchmarks import compatibility
from benchmarks.gpu.visit import tables
from pod_integrate.devices.registry import limits_of
from pod_integrate.engines.sglang import checks, layer_rules, rules, speculation_rules
from pod_integrate.engines.sglang.alternatives import Machine
from pod_integrate.engines.sglang.facts import EngineFacts
from pod_integrate.errors import UnsupportedFeatureError

DOCUMENT = compatibility.load()
FEATURES: list[dict[str, Any]] = DOCUMENT["feature"]
RAN = {"gpu", "cpu", "objects"}
RULES = [rule.feature for rule in (*rules.ENGINE, *speculation_rules.SPECULATION)]
RULES += [rule.feature for rule in layer_rules.LAYER]
PLAIN = EngineFacts(
    limits=limits_of("cpu"), has_graphs=False, dtype=torch.float32, kv_cache_dtype=torch.float32,
    pool="MHATokenToKVPool",
)  # fmt: skip
REFUSED = [feature for feature in FEATURES if "facts" in feature]


def named(features: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(feature, id=feature["name"]) for feature in features]


@pytest.mark.parametrize("feature", named(FEATURES))
def test_what_ran_has_a_proof_and_what_is_refused_a_rule(feature: dict[str, Any]) -> None:
    known = set(feature["known"].values())
    assert list(feature["known"]) == DOCUMENT["sglang"]
    assert known <= RAN | {"read", "refused", "-"}
    assert bool(feature.get("proof")) == bool(known & RAN)
    assert ("refused" in feature) == ("refused" in known)
    assert not ({"facts", "instead"} & set(feature)) or "refused" in feature
    # What nobody ran says what was found.
    assert known != {"read"} or "note" in feature


@pytest.mark.parametrize("feature", named(FEATURES))
def test_every_proof_exists(feature: dict[str, Any]) -> None:
    for proof in feature.get("proof", []):
        path, _, place = proof.partition("::")
        if path.endswith(".py"):
            tree = ast.parse((ROOT / path).read_text())
            assert place in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, proof
            continue
        result = json.loads((ROOT / path).read_text())
        if place and "features" in result:
            shown = result["features"][place]
            parted = shown["pod against stock"]
            assert parted["differences"] == 0 or parted["near_ties"] > 0.9, proof
            if "enable_deterministic_inference" in shown["arguments"]:
                assert shown["pod in other batches"]["differences"] == 0, proof
            if shown["arguments"].get("disable_radix_cache") is False:
                assert shown["cached_tokens"]["pod"] > 0, proof
        elif place:
            (row,) = (row for row in result["variants"] if row["variant"] == place)
            assert row["requests"] == row["token_equal"] > 0, proof
        # Results of a GPU are proofs of `gpu` alone, and the other way round.
        if "gpu" in result:
            assert "gpu" in feature["known"].values()
    if "gpu" in feature["known"].values():
        assert any("/gpu_" in proof for proof in feature["proof"])


@pytest.mark.parametrize("feature", named(FEATURES))
def test_a_refused_feature_is_that_of_a_rule(feature: dict[str, Any]) -> None:
    words = feature.get("refused")
    assert words is None or any(words in rule for rule in RULES)


@pytest.mark.parametrize("feature", named(REFUSED))
def test_a_refusal_is_raised_and_names_what_to_do(feature: dict[str, Any]) -> None:
    told = dict(feature["facts"])
    if "kv_cache_dtype" in told:
        told["kv_cache_dtype"] = getattr(torch, told["kv_cache_dtype"])
    with pytest.raises(UnsupportedFeatureError) as caught:
        checks.check_engine(dataclasses.replace(PLAIN, **told), Machine())
    assert feature["refused"] in str(caught.value)
    assert feature["instead"] in str(caught.value)


def test_versions_are_those_that_ran() -> None:
    assert importlib.metadata.version("sglang") == DOCUMENT["sglang"][-1]
    runs = json.loads((ROOT / "benchmarks" / "results" / "hf_equal.json").read_text())["runs"]
    assert DOCUMENT["transformers"] == [run["transformers"] for run in runs]


def test_the_guide_shows_the_file() -> None:
    page = compatibility.PAGE.read_text()
    rows = compatibility.drawn(DOCUMENT)
    assert tables.replaced(page, compatibility.MARK, rows) == page
