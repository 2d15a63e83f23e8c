"""What attention `pod` refuses in transformers: each message names the alternative."""

from __future__ import annotations

from typing import Any

import torch

from pod_integrate.devices.registry import KINDS, limits_of
from pod_integrate.errors import DtypeError, KernelUnavailableError, UnsupportedFeatureError
from pod_integrate.terms.geometry import HEAD_DIM_RULE, takes_head_dim

_HOST = torch.device("cpu")
# Arguments that change the scores and that the op does not know. Sparse models hand the keys that
# they chose (the last two) to all attention but SDPA and eager, whose mask they cut instead.
SCORE_ARGUMENTS = (
    *("position_bias", "head_mask", "alibi", "alibi_slopes"),
    *("indices", "block_indices"),
)
_STOCK = "use attn_implementation='sdpa' or 'eager'"


def check_tensors(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    """Raise for a device, dtype or head dim that no kernel of ours takes."""
    device, dtypes = query.device, (query.dtype, key.dtype, value.dtype)
    if device.type not in KINDS:
        raise KernelUnavailableError(
            f"attention 'pod' runs on {' and '.join(KINDS)}, not on {device}; {_STOCK}"
        )
    check_dtype(dtypes[0], device.type)
    if len(set(dtypes)) > 1:
        raise DtypeError(
            f"attention 'pod' needs one dtype, got {dtypes[0]} for queries, {dtypes[1]} for keys "
            f"and {dtypes[2]} for values; run the forward under torch.autocast, or {_STOCK}"
        )
    check_head_dim(query.shape[-1], value.shape[-1], device.type)


def check_dtype(dtype: torch.dtype, device: str) -> None:
    """Raise for a dtype that the kernel of this kind of device does not take."""
    taken = limits_of(device).dtypes
    if dtype not in taken:
        names = ", ".join(str(known).removeprefix("torch.") for known in taken)
        raise DtypeError(
            f"attention 'pod' takes {names} on {device}, got {dtype}; load the model with one of "
            f"them (dtype={taken[0]}), or {_STOCK}"
        )


def check_head_dim(dim: int, value_dim: int, device: str) -> None:
    """Raise for a head dim that the kernel of this kind of device does not take."""
    if dim != value_dim:
        raise UnsupportedFeatureError(
            f"attention 'pod' needs one head dim, got {dim} for keys and {value_dim} for values "
            f"(as in multi-head latent attention); {_STOCK}"
        )
    if not takes_head_dim(dim):
        raise UnsupportedFeatureError(
            f"attention 'pod' needs a head dim that is {HEAD_DIM_RULE}, got {dim}; {_STOCK}"
        )
    taken = limits_of(device).head_dims
    if dim not in taken:
        raise UnsupportedFeatureError(
            f"attention 'pod' needs a head dim of {taken} on a GPU, got {dim}; {_STOCK}"
        )


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise for attention arguments that change the scores in a way the op does not know."""
    for name in SCORE_ARGUMENTS:
        if arguments.get(name) is not None:
            raise UnsupportedFeatureError(f"attention 'pod' does not support {name}; {_STOCK}")


def check_model(model: Any) -> None:
    """Raise at once for a model that would only fail, or never call POD, while it runs."""
    config = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedFeatureError(
            f"attention 'pod' serves decoder-only models, {type(model).__name__} is "
            f"encoder-decoder; {_STOCK}"
        )
    if not consults_interface(model):
        raise UnsupportedFeatureError(
            f"{type(model).__name__} does not take other attention functions; {_STOCK}"
        )
    device = kind_of(model)
    _check_model_dtype(model, device)
    heads = getattr(config, "num_attention_heads", None)
    dim = getattr(config, "head_dim", None)
    if dim is None and heads:
        dim = config.hidden_size // heads
    latent = getattr(config, "v_head_dim", None)
    if dim is not None:
        check_head_dim(dim, dim if latent is None else latent, device)


def consults_interface(model: Any) -> bool:
    """Whether a model's layers look up their attention function, as far as its class tells."""
    # The second one reads the model's source and asks whether it does.
    return bool(model._supports_attention_backend and model._can_set_attn_implementation())


def kind_of(model: Any) -> str:
    """One of registry.KINDS: where a model runs. Raises KernelUnavailableError for others."""
    kind = str(model.device.type)
    places = getattr(model, "hf_device_map", None)
    if kind not in KINDS and places:
        # accelerate moves the weights here for as long as a layer runs.
        found = (torch.device(place) for place in places.values() if place != "disk")
        kind = next((place.type for place in found if place != _HOST), _HOST.type)
    if kind not in KINDS:
        raise KernelUnavailableError(
            f"attention 'pod' runs on {' and '.join(KINDS)}, the model is on {model.device}; move "
            f"it there, or {_STOCK}"
        )
    return kind


def _check_model_dtype(model: Any, device: str) -> None:
    if getattr(model, "hf_quantizer", None) is not None:
        # Stored in other dtypes than it computes in; the first forward tells.
        return
    if torch.is_autocast_enabled(device) and model.dtype is not torch.float64:
        return
    check_dtype(model.dtype, device)


def check_graphs(config: Any) -> None:
    """Raise when a ContinuousBatchingConfig asks for accelerator graphs."""
    asked = config.use_cuda_graph
    if any(asked) if isinstance(asked, (tuple, list)) else asked:
        raise UnsupportedFeatureError(
            "attention 'pod' does not run under the accelerator graphs of continuous batching: "
            f"their lengths change on the host, got use_cuda_graph={asked}; leave it out, or use "
            "attn_implementation='sdpa'"
        )
