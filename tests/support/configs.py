"""Configs that differ from another one."""

from __future__ import annotations

import dataclasses
from typing import Any

from pod_integrate.terms.config import PodConfig


def changed(base: PodConfig, **fields: Any) -> PodConfig:
    """`base` with other fields; those of a tile as a dict."""
    tiles = {
        name: dataclasses.replace(getattr(base, name), **fields.pop(name))
        for name in ("prefill", "decode")
        if name in fields
    }
    return dataclasses.replace(base, **tiles, **fields)
