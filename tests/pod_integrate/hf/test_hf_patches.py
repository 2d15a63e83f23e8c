"""Patch points: each one is where we expect it, says so when upstream moves it, and is undone."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import transformers

from pod_integrate import hf
from pod_integrate.engines.transformers import paged, patches
from pod_integrate.errors import UnsupportedFeatureError

ALL = [
    patch
    for patch in (*patches.PATCHES, *patches.SERVE_PATCHES)
    if patch.versions[0] <= patches.check_version() < patch.versions[1]
]


def names(patch: patches.Patch) -> str:
    return f"{patch.module.rsplit('.', 1)[-1]}.{patch.attribute}"


def current(patch: patches.Patch) -> Any:
    owner: Any = importlib.import_module(patch.module)
    for part in patch.attribute.split("."):
        owner = getattr(owner, part)
    return owner


@pytest.mark.parametrize("patch", ALL, ids=names)
def test_upstream_has_the_function_that_is_wrapped(patch: patches.Patch) -> None:
    hf.disable()
    original = current(patch)
    patches.apply((patch,))
    assert current(patch) is not original
    assert current(patch).__wrapped__ is original
    patches.apply((patch,))
    assert current(patch).__wrapped__ is original, "wrapped twice"
    hf.disable()
    assert current(patch) is original
    hf.enable()


@pytest.mark.parametrize("patch", ALL, ids=names)
def test_moved_function_is_named_and_nothing_is_wrapped(
    patch: patches.Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf.disable()
    others = [one for one in ALL if one is not patch]
    before = [current(one) for one in others]
    gone = dataclasses.replace(patch, attribute=f"{patch.attribute}_moved")
    renamed = dataclasses.replace(patch, parameters=("a_parameter_of_old",))
    for broken, text in ((gone, "it is gone"), (renamed, "a_parameter_of_old")):
        with pytest.raises(UnsupportedFeatureError, match=text):
            patches.apply((*others, broken))
    assert [current(one) for one in others] == before
    hf.enable()


@pytest.mark.parametrize("version", ["4.57.1", "5.11.0", "5.25.0", "6.0.0.dev0"])
def test_unsupported_version_says_which_are_supported(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an import finds now: SGLang may have put another module there since collection.
    monkeypatch.setattr(importlib.import_module("transformers"), "__version__", version)
    with pytest.raises(UnsupportedFeatureError, match=rf"5\.12 .* 5\.25, got {version}"):
        hf.enable()


def test_patch_of_other_releases_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hf.disable()
    later = dataclasses.replace(
        patches.PATCHES[0], attribute="not_there_yet", versions=((99, 0), (99, 1))
    )
    patches.apply((later,))
    hf.enable()


def test_disable_leaves_transformers_as_it_was() -> None:
    hf.disable()
    registered = transformers.AttentionInterface._global_mapping
    masks = transformers.AttentionMaskInterface._global_mapping
    assert not set(registered) & set(patches.NAMES) and patches.NAME not in masks
    hf.disable()
    hf.enable()
    assert set(patches.NAMES) <= set(registered) and patches.NAME in masks


def test_foreign_wrapper_over_ours_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = patches.PATCHES[0]
    hf.disable()
    original = current(patch)
    hf.enable()
    owner = importlib.import_module(patch.module)

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, patch.attribute, theirs)
    hf.disable()
    assert current(patch) is theirs
    monkeypatch.setattr(owner, patch.attribute, original)
    hf.enable()


def test_gate_claims_pod_but_no_version_of_flash_attention() -> None:
    gate = importlib.import_module(patches.PATCHES[1].module).is_flash_attention_requested
    assert gate(requested_attention_implementation="pod") is True
    assert gate(requested_attention_implementation="paged|pod") is True
    assert gate(requested_attention_implementation="pod", version=2) is False
    assert gate(requested_attention_implementation="sdpa") is False
    assert gate(requested_attention_implementation="flash_attention_2") is True


def test_cache_update_of_5_24_hands_the_cache_to_attention_unless_other_attention_runs() -> None:
    class Cache:
        """What the wrapper knows of upstream's."""

        def update(self, key: Any, value: Any, layer_idx: int, kwargs: dict[str, Any]) -> Any:
            return f"{key} gathered", f"{value} gathered"

    (patch,) = (one for one in patches.PATCHES if one.attribute == "PagedAttentionCache.update")
    update, cache, kwargs = patch.wrap(Cache.update), Cache(), dict[str, Any]()
    assert update(cache, "k", "v", 0, kwargs) == ("k gathered", "v gathered") and not kwargs
    paged._prepared[cache] = object()  # type: ignore[assignment]
    assert update(cache, "k", "v", 0, kwargs) == ("k", "v") and kwargs == {"cache": cache}
    # The model runs other attention from now on, on the same cache.
    paged.forget(cache)
    assert update(cache, "k", "v", 0, {}) == ("k gathered", "v gathered")
