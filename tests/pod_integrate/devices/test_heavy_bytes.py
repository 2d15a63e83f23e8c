"""Which batches over a cache of 8 bits run in CTAs of a pair."""

from __future__ import annotations

import dataclasses

import numpy as np

from pod_integrate.devices.cuda.default_tiles import default_tiles
from pod_integrate.devices.cuda.heavy_prefill import heavy_config, is_heavy
from pod_integrate.devices.cuda.limits import ARCHITECTURES, require_fits
from pod_integrate.terms.keys import DeviceKey, Geometry

H200 = DeviceKey("nvidia-h200", "sm90", 132)


def test_over_bytes_small_prefills_of_head_dim_128_are_heavy_and_nothing_else() -> None:
    geometry = dataclasses.replace(Geometry.uniform((32, 8, 128), "bf16"), kv_dtype="e4m3")
    narrow = dataclasses.replace(geometry, head_dim=64)
    assert heavy_config(default_tiles(ARCHITECTURES["sm_90a"], 64, 1), narrow, H200) is None
    found = heavy_config(default_tiles(ARCHITECTURES["sm_90a"], 128, 1), geometry, H200)
    assert found is not None and (found.ctas_per_sm, found.decode.kv_rows) == (1, 256)
    require_fits(found, ARCHITECTURES["sm_90a"], 128, 1)

    def heavy(*requests: tuple[int, int]) -> bool:
        q, kv = (np.array(each) for each in zip(*requests, strict=True))
        return is_heavy(q, kv, geometry)

    # One wave of items and two; three, decodes that read much, and what overlaps with nothing.
    assert heavy((512, 4096)) and heavy((1024, 1024)) and heavy((512, 512), (1, 300))
    assert not heavy((1536, 1536)) and not heavy((8192, 8192))
    assert not heavy((2048, 16384), *[(1, 16384)] * 64) and not heavy((1, 300))
