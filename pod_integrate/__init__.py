"""POD-Attention: prefill and decode attention of a hybrid batch in one launch.

Names load on first use: `import pod_integrate` itself must not cost a torch import, because the
command line and every SGLang process pay for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pod_integrate.devices.device_plan import DevicePlan
    from pod_integrate.op import hybrid_attention
    from pod_integrate.terms.batch import HybridBatch
    from pod_integrate.terms.config import PodConfig, TileConfig
    from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
    from pod_integrate.terms.table import ConfigTable

__version__ = "0.1.0"

_HOME = {
    "Bucket": "terms.keys",
    "ConfigTable": "terms.table",
    "DeviceKey": "terms.keys",
    "DevicePlan": "devices.device_plan",
    "Geometry": "terms.keys",
    "HybridBatch": "terms.batch",
    "PodConfig": "terms.config",
    "TileConfig": "terms.config",
    "hybrid_attention": "op",
}

__all__ = [
    "Bucket",
    "ConfigTable",
    "DeviceKey",
    "DevicePlan",
    "Geometry",
    "HybridBatch",
    "PodConfig",
    "TileConfig",
    "hybrid_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pod_integrate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pod_integrate.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
