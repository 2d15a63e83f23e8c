"""Every place where this plug-in changes transformers, and the versions it is known to fit.

Two names are registered through transformers' own interfaces; functions of continuous batching,
of loading and of the server's argument check are wrapped. Nothing else of upstream is changed.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from pod_integrate.engines.transformers import wrappers
from pod_integrate.errors import UnsupportedFeatureError

NAME, NAMES = wrappers.NAME, wrappers.NAMES
# First supported and first unsupported release.
VERSIONS = ((5, 12), (5, 25))
_BATCHING = "transformers.generation.continuous_batching"


@dataclasses.dataclass(frozen=True)
class Patch:
    """One wrapped function.

    module, attribute  where it is looked up, `Class.method` or a name
    parameters         what it must still take
    wrap               makes the wrapper from the original
    versions           releases that have it
    """

    module: str
    attribute: str
    parameters: tuple[str, ...]
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
    versions: tuple[tuple[int, int], tuple[int, int]] = VERSIONS


_GATE = ("config", "requested_attention_implementation", "version")
_GATE_NAME = "is_flash_attention_requested"
PATCHES = (
    Patch(
        f"{_BATCHING}.continuous_api", _GATE_NAME, _GATE, wrappers.wrap_gate, ((5, 16), VERSIONS[1])
    ),
    Patch(f"{_BATCHING}.initialization", _GATE_NAME, _GATE, wrappers.wrap_gate),
    Patch(f"{_BATCHING}.cache", _GATE_NAME, _GATE, wrappers.wrap_gate),
    Patch(
        f"{_BATCHING}.input_outputs",
        "ContinuousBatchingIOs.prepare_batch_tensors",
        ("self", "requests_in_batch", "max_kv_read"),
        wrappers.wrap_prepare,
    ),
    Patch(
        f"{_BATCHING}.model_runner",
        "ModelRunner.compute_batch",
        ("self", "model", "batch_data"),
        wrappers.wrap_compute,
    ),
    Patch(
        f"{_BATCHING}.cache",
        "PagedAttentionCache.update",
        ("self", "key_states", "value_states", "layer_idx", "kwargs"),
        wrappers.wrap_update,
        ((5, 24), VERSIONS[1]),
    ),
    Patch(
        "transformers.modeling_utils",
        "PreTrainedModel.get_correct_attn_implementation",
        ("self", "requested_attention"),
        wrappers.wrap_choose,
    ),
    Patch(
        f"{_BATCHING}.continuous_api",
        "resolve_continuous_batching_config",
        ("config", "cb_config"),
        wrappers.wrap_resolve,
    ),
)
# Wrapped by `pod-attn transformers serve` only: it imports the server.
SERVE_PATCHES = (
    Patch(
        "transformers.cli.serving.model_manager",
        "ModelManager._validate_args",
        ("self",),
        wrappers.wrap_validate,
    ),
)


def check_version() -> tuple[int, int]:
    """(major, minor) of transformers; raises UnsupportedFeatureError outside of VERSIONS."""
    import transformers

    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    first, last = VERSIONS
    if not first <= (major, minor) < last:
        raise UnsupportedFeatureError(
            f"attention 'pod' supports transformers {first[0]}.{first[1]} up to but not including "
            f"{last[0]}.{last[1]}, got {transformers.__version__}; install one of these"
        )
    return major, minor


_undo: list[tuple[Any, str, Any, Any]] = []


def apply(patches: tuple[Patch, ...]) -> None:
    """Wrap each function once; raises UnsupportedFeatureError, and wraps none, if one moved."""
    version = check_version()
    found = [(patch, *_find(patch)) for patch in patches if _covers(patch, version)]
    for patch, owner, name, original in found:
        if any(entry[0] is owner and entry[1] == name for entry in _undo):
            continue
        wrapper = patch.wrap(original)
        setattr(owner, name, wrapper)
        _undo.append((owner, name, original, wrapper))


def undo() -> None:
    """Put every original back; one that somebody wrapped after us is left to them."""
    while _undo:
        owner, name, original, wrapper = _undo.pop()
        if getattr(owner, name) is wrapper:
            setattr(owner, name, original)


def _covers(patch: Patch, version: tuple[int, int]) -> bool:
    return patch.versions[0] <= version < patch.versions[1]


def _find(patch: Patch) -> tuple[Any, str, Any]:
    owner = importlib.import_module(patch.module)
    *path, name = patch.attribute.split(".")
    try:
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, name)
    except AttributeError as error:
        raise _moved(patch, f"it is gone ({error})") from error
    taken = inspect.signature(original).parameters
    missing = [name for name in patch.parameters if name not in taken]
    if missing:
        raise _moved(patch, f"it no longer takes {', '.join(missing)}")
    return owner, name, original


def _moved(patch: Patch, what: str) -> UnsupportedFeatureError:
    import transformers

    return UnsupportedFeatureError(
        f"transformers {transformers.__version__} changed {patch.module}.{patch.attribute}: "
        f"{what}; "
        "install a release that docs/transformers.md lists, or use attn_implementation='sdpa'"
    )
