"""What attention `pod` refuses in transformers: each message names the alternative."""

from __future__ import annotations

from typing import Any

import torch

from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError
from pod_integrate.geometry import HEAD_DIM_RULE, takes_head_dim

# Arguments that change the scores and that the op does not know.
_SCORE_ARGUMENTS = ("position_bias", "head_mask", "alibi", "alibi_slopes")
_STOCK = "use attn_implementation='sdpa' or 'eager'"


def check_tensors(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    """Raise for a device or head dim that no kernel of ours takes."""
    if query.device.type not in ("cpu", "cuda"):
        raise KernelUnavailableError(
            f"attention 'pod' runs on cpu and cuda, not on {query.device}; {_STOCK}"
        )
    check_head_dim(query.shape[-1], value.shape[-1])


def check_head_dim(dim: int, value_dim: int) -> None:
    """Raise for a head dim that no kernel of ours takes."""
    if dim != value_dim:
        raise UnsupportedFeatureError(
            f"attention 'pod' needs one head dim, got {dim} for keys and {value_dim} for values "
            f"(as in multi-head latent attention); {_STOCK}"
        )
    if not takes_head_dim(dim):
        raise UnsupportedFeatureError(
            f"attention 'pod' needs a head dim that is {HEAD_DIM_RULE}, got {dim}; {_STOCK}"
        )


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise for attention arguments that change the scores in a way the op does not know."""
    for name in _SCORE_ARGUMENTS:
        if arguments.get(name) is not None:
            raise UnsupportedFeatureError(f"attention 'pod' does not support {name}; {_STOCK}")


def check_model(model: Any) -> None:
    """Raise at once for a model that would only fail, or always be passed on, while it runs."""
    config = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedFeatureError(
            f"attention 'pod' serves decoder-only models, {type(model).__name__} is "
            f"encoder-decoder; {_STOCK}"
        )
    if not getattr(model, "_supports_attention_backend", True):
        raise UnsupportedFeatureError(
            f"{type(model).__name__} does not take other attention functions; {_STOCK}"
        )
    heads = getattr(config, "num_attention_heads", None)
    dim = getattr(config, "head_dim", None)
    if dim is None and heads:
        dim = config.hidden_size // heads
    latent = getattr(config, "v_head_dim", None)
    if dim is not None:
        check_head_dim(dim, dim if latent is None else latent)


def check_graphs(config: Any) -> None:
    """Raise when a ContinuousBatchingConfig asks for accelerator graphs."""
    asked = config.use_cuda_graph
    if any(asked) if isinstance(asked, (tuple, list)) else asked:
        raise UnsupportedFeatureError(
            "attention 'pod' does not run under the accelerator graphs of continuous batching: "
            f"their lengths change on the host, got use_cuda_graph={asked}; leave it out, or use "
            "attn_implementation='sdpa'"
        )
