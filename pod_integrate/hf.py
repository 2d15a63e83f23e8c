"""transformers on POD: `enable()` makes attn_implementation "pod" known, `disable()` undoes it."""

from __future__ import annotations

from typing import Any

from pod_integrate.devices.registry import device_named
from pod_integrate.engines.transformers import engine, patches, switch
from pod_integrate.engines.transformers.attention import pod_attention
from pod_integrate.engines.transformers.checks import check_model, kind_of
from pod_integrate.engines.transformers.masks import pod_mask

__all__ = ["disable", "enable"]


def enable(model: Any = None) -> None:
    """Register attention `pod` with transformers; switch `model` to it when one is given.

    Afterwards generate(), generate_batch() and models loaded with `attn_implementation="pod"` run
    their attention on pod_integrate.hybrid_attention, on a CPU or a CUDA device. May be called
    again. Raises UnsupportedFeatureError for a transformers version or a model that is not
    served, DtypeError or KernelUnavailableError for a model whose dtype or device no kernel
    takes, BuildError when the kernel does not compile; nothing is registered then.
    """
    patches.check_version()
    if model is not None:
        check_model(model)
    # Compiled and loaded now: a step should not wait for it, nor fail on it.
    device_named("cpu" if model is None else kind_of(model)).load()
    from transformers import AttentionInterface, AttentionMaskInterface

    patches.apply(patches.PATCHES)
    for name in patches.NAMES:
        AttentionInterface.register(name, pod_attention)
    AttentionMaskInterface.register(patches.NAME, pod_mask)
    if model is not None:
        switch.put_on(model)


def disable() -> None:
    """Undo enable(): models go back to what they ran, transformers is as it was imported.

    A model that was loaded with `attn_implementation="pod"` gets what transformers would have
    chosen for it; copies of a model follow it. Does nothing when enable() was not called. Steps
    that are recorded go to the tuner first.
    """
    switch.put_back_all()
    from transformers import AttentionInterface, AttentionMaskInterface

    patches.undo()
    for name in patches.NAMES:
        AttentionInterface._global_mapping.pop(name, None)
    AttentionMaskInterface._global_mapping.pop(patches.NAME, None)
    engine.close()
