"""Every place where this plug-in changes transformers, and the versions it is known to fit.

Two names are registered through transformers' own interfaces; five functions of continuous
batching and of the server's argument check are wrapped. Nothing else of upstream is changed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from pod_integrate.engines.transformers import engine, paged
from pod_integrate.engines.transformers.checks import check_graphs
from pod_integrate.errors import UnsupportedFeatureError

NAME = "pod"
# 5.12 to 5.17 put the prefix before the name of a model in continuous batching.
NAMES = (NAME, f"paged|{NAME}")
# First supported and first unsupported release.
VERSIONS = ((5, 12), (5, 24))
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


def _wrap_gate(original: Callable[..., Any]) -> Callable[..., Any]:
    """Continuous batching: no mask for `pod`, no switch to another attention, no refusal.

    Flash attention of one version, which brings its own block tables, is never claimed.
    """

    @functools.wraps(original)
    def gate(
        config: Any = None, requested_attention_implementation: Any = None, version: Any = None
    ) -> bool:
        name = requested_attention_implementation
        if config is not None:
            name = config._attn_implementation
        if name in NAMES:
            return version is None
        return bool(original(config, requested_attention_implementation, version))

    return gate


def _wrap_prepare(original: Callable[..., Any]) -> Callable[..., Any]:
    """Take a step's lengths where they are host integers, and skip upstream's read indices."""

    @functools.wraps(original)
    def prepare_batch_tensors(
        self: Any, requests_in_batch: list[Any], *args: Any, **kwargs: Any
    ) -> None:
        if self.config._attn_implementation not in NAMES:
            original(self, requests_in_batch, *args, **kwargs)
            return
        requests = [
            # Upstream moves position_offset on while it prepares.
            (future.state.request_id, future.state.position_offset, future.query_length)
            for future in requests_in_batch
        ]
        bound = inspect.signature(original).bind(self, requests_in_batch, *args, **kwargs)
        # One index per cached token, for a gather that POD does not do: 0 makes none.
        bound.arguments["max_kv_read"] = 0
        original(*bound.args, **bound.kwargs)
        paged.prepare(self.cache, requests)

    return prepare_batch_tensors


def _wrap_compute(original: Callable[..., Any]) -> Callable[..., Any]:
    """Name the step that a forward belongs to, and time it."""

    @functools.wraps(original)
    def compute_batch(self: Any, model: Any, batch_data: Any) -> Any:
        if model.config._attn_implementation not in NAMES:
            return original(self, model, batch_data)
        mark = engine.start_step(model.device)
        with paged.running(batch_data["cache"]):
            result = original(self, model, batch_data)
        engine.end_step(model.device, mark)
        return result

    return compute_batch


def _wrap_resolve(original: Callable[..., Any]) -> Callable[..., Any]:
    """Accelerator graphs are refused when asked for and off otherwise."""

    @functools.wraps(original)
    def resolve(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        if bound.arguments["config"]._attn_implementation in NAMES:
            asked = bound.arguments["cb_config"]
            check_graphs(asked)
            bound.arguments["cb_config"] = _without_graphs(asked)
        return original(*bound.args, **bound.kwargs)

    return resolve


def _without_graphs(config: Any) -> Any:
    # A copy: the user's config may serve another model next.
    return dataclasses.replace(config, use_cuda_graph=False)


def _wrap_validate(original: Callable[..., Any]) -> Callable[..., Any]:
    """`transformers serve` accepts `--attn-implementation pod` beside its own list."""

    @functools.wraps(original)
    def validate(self: Any) -> None:
        name = self.attn_implementation
        if name not in NAMES:
            original(self)
            return
        self.attn_implementation = None
        try:
            original(self)
        finally:
            self.attn_implementation = name

    return validate


_GATE = ("config", "requested_attention_implementation", "version")
_GATE_NAME = "is_flash_attention_requested"
PATCHES = (
    Patch(f"{_BATCHING}.continuous_api", _GATE_NAME, _GATE, _wrap_gate, ((5, 16), VERSIONS[1])),
    Patch(f"{_BATCHING}.initialization", _GATE_NAME, _GATE, _wrap_gate),
    Patch(f"{_BATCHING}.cache", _GATE_NAME, _GATE, _wrap_gate),
    Patch(
        f"{_BATCHING}.input_outputs",
        "ContinuousBatchingIOs.prepare_batch_tensors",
        ("self", "requests_in_batch", "max_kv_read"),
        _wrap_prepare,
    ),
    Patch(
        f"{_BATCHING}.model_runner",
        "ModelRunner.compute_batch",
        ("self", "model", "batch_data"),
        _wrap_compute,
    ),
    Patch(
        f"{_BATCHING}.continuous_api",
        "resolve_continuous_batching_config",
        ("config", "cb_config"),
        _wrap_resolve,
    ),
)
# Wrapped by `pod-attn transformers serve` only: it imports the server.
SERVE_PATCHES = (
    Patch(
        "transformers.cli.serving.model_manager",
        "ModelManager._validate_args",
        ("self",),
        _wrap_validate,
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
