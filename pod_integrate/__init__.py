"""POD-Attention: prefill and decode attention of a hybrid batch in one launch."""

from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig, TileConfig
from pod_integrate.keys import Bucket, DeviceKey, Geometry
from pod_integrate.table import ConfigTable

__version__ = "0.1.0"

__all__ = [
    "Bucket",
    "ConfigTable",
    "DeviceKey",
    "Geometry",
    "HybridBatch",
    "PodConfig",
    "TileConfig",
]
