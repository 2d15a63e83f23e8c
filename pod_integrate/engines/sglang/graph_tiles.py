"""Tiles of a decode graph, from the config table that is in use when it is captured.

Only decode_split_tokens can change from replay to replay. Tiles are those that the table's entries
for decodes of this batch size agree on, whatever their contexts; where they do not agree, or there
are none, the default's.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch

from pod_integrate.devices.call import Attention
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.errors import PodAttentionError
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.verify import NoRoomError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket

logger = logging.getLogger(__name__)


class CapturedConfigs(NamedTuple):
    """What a graph launches, and configs of the table that its plans should hold."""

    base: Attention
    tuned: list[PodConfig]


def configs_to_capture(group: LayerGroup, size: int) -> CapturedConfigs:
    """For the decode graph of `size` requests; what it launches is loaded and verified.

    Configs that were refused here choose nothing, and tiles that gave wrong answers never come
    back, whatever split they run with.
    """
    entries = _entries(group, size)
    found = list(entries.values())
    names = {tiles_name(config) for config in found}
    if len(names) == 1:
        base = with_tiles(group.default, found[0])
        lengths = [1] * size, [max(bucket.decode_context for bucket in entries)] * size
        try:
            attention = group.readiness.prepare(base, lengths)
        except (PodAttentionError, NoRoomError, torch.OutOfMemoryError) as error:
            logger.error("decode graph of %d keeps the default's tiles: %s", size, error)
        else:
            return CapturedConfigs(attention, found)
    own = tiles_name(group.default)
    return CapturedConfigs(group.readiness.default, [c for c in found if tiles_name(c) == own])


def _entries(group: LayerGroup, size: int) -> dict[Bucket, PodConfig]:
    if group.batch_invariant:
        return {}
    decodes = Bucket.of([1] * size, [1] * size).decodes
    refused = group.readiness.refused
    own, wrong = tiles_name(group.default), {tiles_name(c) for c in group.readiness.wrong}
    return {
        bucket: config
        for bucket, config in group.active.decode_configs(decodes).items()
        if config not in refused and (tiles_name(config) == own or tiles_name(config) not in wrong)
    }
