"""Models that run `pod`: how they are put on it, found again and put back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from pod_integrate.engines.transformers.patches import NAME, NAMES

# On the model itself, so that copies and pickles of it bring it along. (config, what it ran) pairs.
_BEFORE = "_pod_attention_before"


def put_on(model: Any) -> None:
    """Switch a model and its sub-models to `pod`; once more changes nothing."""
    if model.config._attn_implementation in NAMES:
        return
    setattr(
        model,
        _BEFORE,
        [(config, config._attn_implementation) for config in _configs(model.config)],
    )
    model.set_attn_implementation(NAME)


def put_back_all() -> None:
    """Every model alive that runs `pod` runs what it ran before, or what it would have chosen."""
    models = _models()
    for model in models:
        for config, name in model.__dict__.pop(_BEFORE, ()):
            if config._attn_implementation in NAMES and name not in NAMES:
                config._attn_implementation_internal = name
    # What is still on `pod` was loaded with it. Sub-models, which know best what suits their own
    # config, are models of their own here; last come sub-configs without a model.
    for model in models:
        _choose(model, model.config)
    for model in models:
        for config in _configs(model.config):
            _choose(model, config)


def _choose(model: Any, config: Any) -> None:
    if config._attn_implementation in NAMES:
        config._attn_implementation_internal = model.get_correct_attn_implementation(None)


def _configs(config: Any) -> Iterator[Any]:
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            yield from _configs(part)


def _models() -> list[Any]:
    """All models alive, sub-models too: copies and unpickled ones pass no function of ours."""
    from transformers import PreTrainedModel

    # By type: `isinstance` would ask proxies for their class, and some import things then.
    return [
        found
        for found in gc.get_objects()
        if issubclass(type(found), PreTrainedModel) and "config" in found.__dict__
    ]
