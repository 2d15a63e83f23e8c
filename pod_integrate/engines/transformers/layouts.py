"""Where upstream's paged cache keeps what we read: two layouts behind one interface.

5.12 to 5.17  one K and one V tensor per layer of a group; group_cache_managers
5.18 on       one flat tensor cut into sectors; cache_allocators with views of each layer

Nothing else in this package touches these attributes.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import torch

from pod_integrate.errors import UnsupportedFeatureError


@dataclasses.dataclass(frozen=True, eq=False)
class CacheGroup:
    """Layers that share block tables.

    index        place in upstream's per-group lists
    window       sliding window in tokens, then the blocks of a request are a ring; None: full
    page_size    tokens per page
    page_stride  page number of block b is b * page_stride, in the views of every layer
    blocks       request id -> its block numbers, upstream's own dict
    """

    index: int
    window: int | None
    page_size: int
    page_stride: int
    blocks: dict[str, list[int]]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerViews:
    """One layer's cache in place, as pages [P, S, Hkv, D] and as rows [P * S, Hkv, D]."""

    group: CacheGroup
    k_pages: torch.Tensor
    v_pages: torch.Tensor
    k_rows: torch.Tensor
    v_rows: torch.Tensor


class CacheLayout:
    """Layers of one PagedAttentionCache; views are made once per layer."""

    def __init__(self, cache: Any) -> None:
        self._cache = weakref.ref(cache)
        self._layers: dict[int, LayerViews] = {}
        self.groups = _sector_groups(cache) if _is_sectors(cache) else _block_groups(cache)

    def layer(self, index: int) -> LayerViews:
        """Views of one layer's cache."""
        views = self._layers.get(index)
        if views is None:
            cache = self._cache()
            make = _sector_views if _is_sectors(cache) else _block_views
            views = self._layers[index] = make(cache, index, self.groups)
        return views


def _is_sectors(cache: Any) -> bool:
    return hasattr(cache, "layer_to_allocator")


def _window(allocator: Any) -> int | None:
    window = getattr(allocator, "sliding_window", None)
    return None if window is None else int(window)


def _sector_groups(cache: Any) -> list[CacheGroup]:
    return [
        CacheGroup(
            index=a.index,
            window=_window(a),
            page_size=a.tokens_per_page,
            page_stride=a.block_physical_stride // a.tokens_per_page,
            blocks=a.block_table,
        )
        for a in cache.cache_allocators.values()
    ]


def _sector_views(cache: Any, index: int, groups: list[CacheGroup]) -> LayerViews:
    allocator = cache.layer_to_allocator[index]
    return LayerViews(
        groups[allocator.index], *allocator._kv_page_views[index], *allocator._kv_token_views[index]
    )


def _block_groups(cache: Any) -> list[CacheGroup]:
    return [
        CacheGroup(
            index=number,
            window=_window(manager),
            page_size=cache.block_size,
            page_stride=1,
            blocks=manager.block_table,
        )
        for number, manager in enumerate(cache.group_cache_managers)
    ]


def _block_views(cache: Any, index: int, groups: list[CacheGroup]) -> LayerViews:
    number, place = cache.layer_index_to_group_indices[index]
    k, v = cache.key_cache[place], cache.value_cache[place]
    pages = (-1, cache.block_size, *k.shape[1:])
    return LayerViews(groups[number], k.view(pages), v.view(pages), k, v)


_layouts: weakref.WeakKeyDictionary[Any, CacheLayout] = weakref.WeakKeyDictionary()


def layout_of(cache: Any) -> CacheLayout:
    """The layout of a cache, read once; UnsupportedFeatureError when upstream has changed it."""
    layout = _layouts.get(cache)
    if layout is None:
        try:
            layout = _layouts[cache] = CacheLayout(cache)
        except AttributeError as error:
            raise UnsupportedFeatureError(
                f"attention 'pod' cannot read this version's paged cache ({error}); use "
                "attn_implementation='sdpa'"
            ) from error
    return layout
